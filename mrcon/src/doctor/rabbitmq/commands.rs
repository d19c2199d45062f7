//! Commands of RabbitMQ's own tools, as remedies show them: for the right virtual host, with every name quoted for
//! a shell. Without the virtual host they would act on things of the same name in another one. Pure.

/// Above the policies that are there by themselves, which have 0.
const PRIORITY: u32 = 10;

/// Tools for one virtual host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) vhost: &'a str,
}

/// What is to be granted, as patterns.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    pub(super) configure: Vec<String>,
    pub(super) write: Vec<String>,
}

/// A policy that is there, with what is to be added to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) pattern: String,
    pub(super) apply_to: String,
    pub(super) priority: i64,
    /// JSON.
    pub(super) definition: String,
}

impl Tools<'_> {
    /// `rabbitmqctl COMMAND -p 'VHOST' REST`.
    fn ctl(self, command: &str, rest: &str) -> String {
        format!("rabbitmqctl {command} -p {} {rest}", quoted(self.vhost))
    }

    /// `rabbitmqadmin --vhost='VHOST' REST`.
    fn admin(self, rest: &str) -> String {
        format!("rabbitmqadmin --vhost={} {rest}", quoted(self.vhost))
    }

    /// Of a classic queue only while it has no messages. Of the others RabbitMQ does not take `--if-empty`, or
    /// does not heed it.
    pub(super) fn delete_queue(self, name: &str, kind: &str) -> String {
        let command = self.ctl("delete_queue", &quoted(name));
        match kind {
            "classic" => format!("{command} --if-empty"),
            _ => command,
        }
    }

    /// What shows whether there are messages in queues.
    pub(super) fn list_messages(self) -> String {
        self.ctl("list_queues", "name messages")
    }

    pub(super) fn list_policies(self) -> String {
        self.ctl("list_policies", "").trim_end().to_owned()
    }

    /// What shows which policy queues have.
    pub(super) fn list_policies_of_queues(self) -> String {
        self.ctl("list_queues", "name policy")
    }

    pub(super) fn list_bindings(self) -> String {
        self.ctl("list_bindings", "").trim_end().to_owned()
    }

    /// A policy of this queue alone, by a name of its own: another one of the same name would be replaced.
    pub(super) fn policy_of_queue(self, queue: &str, definition: &str) -> String {
        self.set_policy(&Policy {
            name: format!("mrcon-{queue}"),
            pattern: format!("^{}$", escaped(queue)),
            apply_to: "queues".to_owned(),
            priority: PRIORITY.into(),
            definition: definition.to_owned(),
        })
    }

    pub(super) fn set_policy(self, policy: &Policy) -> String {
        let rest = format!(
            "--apply-to {} --priority {} {} {} {}",
            policy.apply_to,
            policy.priority,
            quoted(&policy.name),
            quoted(&policy.pattern),
            quoted(&policy.definition)
        );
        self.ctl("set_policy", &rest)
    }

    pub(super) fn declare_queue(self, name: &str, kind: &str) -> String {
        self.admin(&format!(
            "declare queue {} durable=true queue_type={kind}",
            field("name", name)
        ))
    }

    pub(super) fn declare_exchange(self, name: &str, kind: &str) -> String {
        self.admin(&format!(
            "declare exchange {} type={kind} durable=true",
            field("name", name)
        ))
    }

    pub(super) fn delete_exchange(self, name: &str) -> String {
        self.admin(&format!("delete exchange {}", field("name", name)))
    }

    /// Binds a queue whose name stands for itself in the command.
    pub(super) fn bind_some_queue(self, exchange: &str, key: &str) -> String {
        self.admin(&format!(
            "declare binding {} destination=QUEUE {}",
            field("source", exchange),
            field("routing_key", key)
        ))
    }

    /// Sets all three permissions at once, so those that the user has stand for themselves.
    pub(super) fn set_permissions(self, lacking: &Permissions) -> String {
        let patterns = |names: &[String], word: &str| match names {
            [] => word.to_owned(),
            [one] => quoted(&format!("^{}$", escaped(one))),
            names => {
                let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
                quoted(&format!("^({})$", names.join("|")))
            }
        };
        let rest = format!(
            "USER {} {} READ",
            patterns(&lacking.configure, "CONFIGURE"),
            patterns(&lacking.write, "WRITE")
        );
        self.ctl("set_permissions", &rest)
    }

    /// Lets a user do everything.
    pub(super) fn permit_everything(self) -> String {
        self.ctl("set_permissions", "USER '.*' '.*' '.*'")
    }

    pub(super) fn add_vhost(self) -> String {
        format!("rabbitmqctl add_vhost {}", quoted(self.vhost))
    }
}

/// `name='orders'`.
fn field(name: &str, value: &str) -> String {
    format!("{name}={}", quoted(value))
}

/// One word of a shell's command, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// As it stands in a pattern.
fn escaped(name: &str) -> String {
    let mut pattern = String::new();
    for letter in name.chars() {
        if !letter.is_alphanumeric() && !matches!(letter, '-' | '_') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: Tools<'_> = Tools { vhost: "it's" };

    #[test]
    fn command_is_for_another_virtual_host_or_breaks_at_a_quote() {
        let of_vhost = [
            TOOLS.delete_queue("q", "classic"),
            TOOLS.delete_queue("q", "quorum"),
            TOOLS.list_messages(),
            TOOLS.list_policies(),
            TOOLS.list_policies_of_queues(),
            TOOLS.list_bindings(),
            TOOLS.policy_of_queue("q", "{}"),
            TOOLS.set_permissions(&Permissions::default()),
            TOOLS.permit_everything(),
        ];
        for command in of_vhost {
            assert!(command.contains(r" -p 'it'\''s'"), "{command}");
        }
        let of_vhost = [
            TOOLS.declare_queue("q", "quorum"),
            TOOLS.declare_exchange("q", "topic"),
            TOOLS.delete_exchange("q"),
            TOOLS.bind_some_queue("q", "key"),
        ];
        for command in of_vhost {
            assert!(command.contains(r" --vhost='it'\''s' "), "{command}");
        }
        let tools = Tools { vhost: "/" };
        assert_eq!(
            tools.delete_queue("a b'; rm", "classic"),
            r"rabbitmqctl delete_queue -p '/' 'a b'\''; rm' --if-empty"
        );
        assert_eq!(
            tools.delete_queue("q", "quorum"),
            "rabbitmqctl delete_queue -p '/' 'q'"
        );
        assert_eq!(
            tools.bind_some_queue("shop events", "shop.#"),
            "rabbitmqadmin --vhost='/' declare binding source='shop events' destination=QUEUE routing_key='shop.#'"
        );
    }

    #[test]
    fn policy_is_about_other_queues_or_replaces_another_ones() {
        assert_eq!(escaped("a.b-c_d$"), "a\\.b-c_d\\$");
        let tools = Tools { vhost: "/" };
        assert_eq!(
            tools.policy_of_queue("a.b", r#"{"overflow":"reject-publish"}"#),
            r#"rabbitmqctl set_policy -p '/' --apply-to queues --priority 10 'mrcon-a.b' '^a\.b$' '{"overflow":"reject-publish"}'"#
        );
    }

    #[test]
    fn permission_takes_another_away() {
        let tools = Tools { vhost: "/" };
        let mut lacking = Permissions::default();
        lacking.write.push("amq.default".to_owned());
        assert_eq!(
            tools.set_permissions(&lacking),
            r"rabbitmqctl set_permissions -p '/' USER CONFIGURE '^amq\.default$' READ"
        );
        lacking.configure = vec!["a".to_owned(), "b.c".to_owned()];
        assert_eq!(
            tools.set_permissions(&lacking),
            r"rabbitmqctl set_permissions -p '/' USER '^(a|b\.c)$' '^amq\.default$' READ"
        );
    }
}
