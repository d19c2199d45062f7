//! Sample orders of a web shop: about 750 bytes of BSON each, with the types that real ones have.

use bson::oid::ObjectId;
use bson::{DateTime, Decimal128, Document, doc};

const FIRST_NAMES: [&str; 8] = [
    "Amara", "Bruno", "Chloé", "Dmitri", "Elif", "Finn", "Grace", "Hiro",
];
const LAST_NAMES: [&str; 8] = [
    "Andersson",
    "Bianchi",
    "Costa",
    "Dvořák",
    "Eriksen",
    "Fernández",
    "García",
    "Hoffmann",
];
const STREETS: [&str; 4] = [
    "Harbour Street",
    "Lindenallee",
    "Rue des Lilas",
    "Via Garibaldi",
];
const CITIES: [(&str, &str, &str); 4] = [
    ("Bristol", "BS1 4RN", "GB"),
    ("Leipzig", "04109", "DE"),
    ("Nantes", "44000", "FR"),
    ("Torino", "10122", "IT"),
];
const PRODUCTS: [(&str, &str, u64); 6] = [
    ("TEA-0417", "Darjeeling first flush, 250 g", 1890),
    ("CUP-1102", "Stoneware cup, sea green", 1450),
    ("POT-0031", "Cast iron teapot, 0.8 l", 6900),
    ("TIN-2210", "Caddy with inner lid", 1195),
    ("SPN-0008", "Measuring spoon, beech", 450),
    ("TEA-0533", "Gyokuro Asahi, 100 g", 3275),
];
/// The states of an order, in the order in which it goes through them.
const STATUSES: [&str; 5] = ["placed", "paid", "packed", "shipped", "delivered"];
const TIERS: [&str; 3] = ["basic", "silver", "gold"];
const TAX_PERCENT: u64 = 19;
const SHIPPING_CENTS: u64 = 490;

/// Makes orders; the same seed makes the same ones, except for ids and times.
#[derive(Debug, Clone)]
pub struct Orders {
    random: Random,
    made: u64,
}

impl Orders {
    /// A shop of its own.
    pub fn new(seed: u64) -> Orders {
        Orders {
            random: Random(seed),
            made: 0,
        }
    }

    /// The next order, with a new `_id`.
    pub fn order(&mut self) -> Document {
        let mut order = doc! {"_id": ObjectId::new()};
        order.extend(self.contents());
        order
    }

    /// A whole new content for an order that exists.
    pub fn contents(&mut self) -> Document {
        self.made += 1;
        let items: Vec<Document> = (0..2 + self.random.below(2)).map(|_| self.item()).collect();
        let net = 1000 + self.random.below(20_000);
        let tax = net * TAX_PERCENT / 100;
        doc! {
            "number": format!("SO-{:08}", self.made),
            "status": STATUSES[0],
            "placed_at": DateTime::now(),
            "customer": self.customer(),
            "items": items,
            "currency": "EUR",
            "totals": {
                "net": money(net),
                "tax": money(tax),
                "shipping": money(SHIPPING_CENTS),
                "gross": money(net + tax + SHIPPING_CENTS),
            },
            "payment": {
                "method": "card",
                "last4": format!("{:04}", self.random.below(10_000)),
                "authorised": true,
                "risk": self.random.below(1000) as f64 / 1000.0,
            },
        }
    }

    /// A change that an order goes through: its next status, or a correction.
    pub fn update(&mut self) -> Document {
        match self.random.below(3) {
            0 => doc! {
                "$set": {"customer.tier": self.random.pick(&TIERS), "touched": self.stamp()},
            },
            1 => doc! {
                "$set": {"status": self.random.pick(&STATUSES), "touched": self.stamp()},
                "$currentDate": {"status_at": true},
            },
            _ => doc! {
                "$push": {"notes": format!("call back {}", self.stamp())},
                "$unset": {"payment.risk": ""},
            },
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Never twice the same, so that no update is without effect: MongoDB reports no event then.
    fn stamp(&mut self) -> i64 {
        self.made += 1;
        self.made as i64
    }

    fn customer(&mut self) -> Document {
        let (first, last) = (
            self.random.pick(&FIRST_NAMES),
            self.random.pick(&LAST_NAMES),
        );
        let (city, postcode, country) = *self.random.choose(&CITIES);
        let number = self.random.below(100_000);
        doc! {
            "id": number as i64,
            "name": format!("{first} {last}"),
            "email": format!("customer.{number:05}@example.com"),
            "tier": self.random.pick(&TIERS),
            "address": {
                "street": format!("{} {}", self.random.pick(&STREETS), 1 + self.random.below(120)),
                "postcode": postcode,
                "city": city,
                "country": country,
            },
        }
    }

    fn item(&mut self) -> Document {
        let (sku, title, cents) = *self.random.choose(&PRODUCTS);
        doc! {
            "sku": sku,
            "title": title,
            "quantity": 1 + self.random.below(4) as i32,
            "unit_price": money(cents),
        }
    }
}

fn money(cents: u64) -> Decimal128 {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.parse()
        .unwrap_or_else(|_| unreachable!("{text} is a decimal number"))
}

/// SplitMix64: a few lines instead of a dependency, and the same numbers in every version.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn choose<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len() as u64) as usize]
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        self.choose::<&str>(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_has_another_size_than_the_benchmark_says() {
        let mut orders = Orders::new(1);
        let bytes: usize = (0..1000)
            .map(|_| orders.order().to_vec().unwrap().len())
            .sum();
        let mean = bytes / 1000;
        assert!((735..=765).contains(&mean), "{mean} bytes on average");
    }

    #[test]
    fn update_without_effect_makes_no_event() {
        let mut orders = Orders::new(2);
        let updates: Vec<_> = (0..100).map(|_| orders.update().to_string()).collect();
        let distinct: std::collections::HashSet<_> = updates.iter().collect();
        assert_eq!(distinct.len(), updates.len());
    }
}
