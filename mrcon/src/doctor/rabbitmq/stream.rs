//! RabbitMQ's native stream protocol, for the entries that publish over it.

use super::{certificates, with_address};
use crate::config::{Protocol, RabbitMq};
use crate::doctor::finding::{Check, Finding};
use crate::doctor::{Doctor, Patient, remedy, tls};
use crate::error::ErrorKind;
use crate::sink::stream::{StreamConnections, StreamLink};

pub(super) async fn examine(doctor: &Doctor, patients: &[Patient<'_>]) -> Vec<Finding> {
    let over = |patient: &&Patient<'_>| patient.entry.rabbitmq.protocol == Protocol::Stream;
    let patients: Vec<&Patient<'_>> = patients.iter().filter(over).collect();
    if patients.is_empty() {
        return Vec::new();
    }
    let uri = &doctor.stream;
    let mut findings = certificates(uri, Check::StreamProtocol).await;
    for patient in patients {
        let found = of_entry(doctor, &patient.entry.rabbitmq).await;
        findings.push(found.of(&patient.name));
    }
    findings
}

async fn of_entry(doctor: &Doctor, rabbitmq: &RabbitMq) -> Finding {
    let uri = &doctor.stream;
    let connections = StreamConnections::new(uri.clone(), &["check".to_owned()], None);
    let wanted = RabbitMq {
        declare: false,
        ..rabbitmq.clone()
    };
    let name = &rabbitmq.stream_name;
    let error = match StreamLink::connect(&connections, 0, &wanted).await {
        Ok(link) => {
            let partitions = link.partitions();
            link.close().await;
            let what = match partitions {
                0 => format!("the stream {name}"),
                1 => format!("the super stream {name} with 1 partition"),
                count => format!("the super stream {name} with {count} partitions"),
            };
            let cause = format!("{uri} answers, and has {what}");
            return Finding::info(Check::StreamProtocol, cause);
        }
        Err(error) => error,
    };
    let words = error.chain();
    match error.kind() {
        ErrorKind::TargetMissing if rabbitmq.declare => {
            let cause =
                format!("{uri} answers; there is no stream {name} yet, and mrcond creates it");
            Finding::info(Check::StreamProtocol, cause)
        }
        ErrorKind::TargetMissing => {
            let remedy = "create the stream, or set rabbitmq.declare: true";
            Finding::error(Check::StreamProtocol, words).remedy(remedy)
        }
        ErrorKind::RabbitAuthentication => {
            let whose = match doctor.has_stream_uri {
                true => "RabbitMQ stream URI (PREFIX_RABBITMQ_STREAM_URI)",
                false => "RabbitMQ URI",
            };
            let remedy = format!("check user, password and virtual host of the {whose}");
            Finding::error(Check::StreamProtocol, with_address(uri, &words)).remedy(remedy)
        }
        ErrorKind::RabbitTls => {
            let remedy = tls::remedy(&words).map_or_else(|| remedy(&error), str::to_owned);
            Finding::away(Check::StreamProtocol, words).remedy(remedy)
        }
        ErrorKind::RabbitConnection | ErrorKind::StreamUnavailable => {
            let words = with_address(uri, &words);
            Finding::away(Check::StreamProtocol, words).remedy(remedy(&error))
        }
        _ => Finding::error(Check::StreamProtocol, words).remedy(remedy(&error)),
    }
}
