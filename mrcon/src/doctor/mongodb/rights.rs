//! What the MongoDB user may do, what it has to, and the command that makes up for the difference. Pure.

use bson::Document;
use std::collections::{BTreeMap, BTreeSet};

/// The role that the commands create.
const ROLE: &str = "mrcon";
/// The action that creates a collection; whoever may insert into it may create it too.
pub(super) const CREATE: &str = "createCollection";

/// What an action is done to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Cluster,
    /// Empty names stand for all there are.
    Named {
        db: String,
        coll: String,
    },
    /// Everything.
    Any,
}

impl Resource {
    pub(super) fn named(db: &str, coll: &str) -> Resource {
        Resource::Named {
            db: db.to_owned(),
            coll: coll.to_owned(),
        }
    }

    /// Whether a privilege on this is one on `wanted`.
    fn covers(&self, wanted: &Resource) -> bool {
        match (self, wanted) {
            (Resource::Any, _) => true,
            (Resource::Cluster, Resource::Cluster) => true,
            (Resource::Named { db, coll }, Resource::Named { db: of, coll: on }) => {
                let is_system = on.starts_with("system.") || (of == "local" && on == "oplog.rs");
                (db.is_empty() || db == of) && (coll == on || (coll.is_empty() && !is_system))
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Resource::Cluster => "{cluster: true}".to_owned(),
            Resource::Any => "{anyResource: true}".to_owned(),
            Resource::Named { db, coll } => {
                format!("{{db: {}, collection: {}}}", quoted(db), quoted(coll))
            }
        }
    }
}

/// What `connectionStatus` says.
#[derive(Debug, Default)]
pub(super) struct Privileges {
    /// The user with its database; none before a login.
    pub(super) user: Option<(String, String)>,
    has_role: bool,
    granted: Vec<(Resource, BTreeSet<String>)>,
}

impl Privileges {
    pub(super) fn of(status: &Document) -> Privileges {
        let Ok(info) = status.get_document("authInfo") else {
            return Privileges::default();
        };
        let list = |name: &str| {
            let found = info.get_array(name).ok().into_iter().flatten();
            found
                .filter_map(|one| one.as_document())
                .collect::<Vec<_>>()
        };
        let text = |one: &Document, name: &str| one.get_str(name).unwrap_or_default().to_owned();
        let user = list("authenticatedUsers");
        let roles = list("authenticatedUserRoles");
        let granted = list("authenticatedUserPrivileges");
        Privileges {
            user: user.first().map(|one| (text(one, "user"), text(one, "db"))),
            has_role: roles
                .iter()
                .any(|one| text(one, "role") == ROLE && text(one, "db") == "admin"),
            granted: granted.into_iter().filter_map(privilege).collect(),
        }
    }

    /// Whether the action may be done.
    pub(super) fn allow(&self, need: &Need) -> bool {
        let covering = self.granted.iter().filter(|(on, _)| on.covers(&need.on));
        let mut actions = covering.flat_map(|(_, actions)| actions);
        actions.any(|action| {
            action == need.action
                || action == "anyAction"
                || (need.action == CREATE && action == "insert")
        })
    }

    /// The command, for the shell, that grants what is missing.
    pub(super) fn command(&self, missing: &[Need]) -> String {
        let mut by_resource: BTreeMap<&Resource, BTreeSet<&str>> = BTreeMap::new();
        for need in missing {
            by_resource.entry(&need.on).or_default().insert(need.action);
        }
        let privileges = by_resource.into_iter().map(|(on, actions)| {
            let actions: Vec<String> = actions.into_iter().map(quoted).collect();
            format!(
                "{{resource: {}, actions: [{}]}}",
                on.shown(),
                actions.join(", ")
            )
        });
        let privileges = privileges.collect::<Vec<_>>().join(", ");
        let admin = "db.getSiblingDB(\"admin\")";
        if self.has_role {
            return format!(
                "{admin}.grantPrivilegesToRole({}, [{privileges}])",
                quoted(ROLE)
            );
        }
        let (user, db) = match &self.user {
            Some((user, db)) => (quoted(user), quoted(db)),
            None => ("USER".to_owned(), quoted("admin")),
        };
        // Whether there is such a role, which is another user's then, only an administrator sees.
        format!(
            "var admin = {admin}, privileges = [{privileges}]; \
             admin.getRole({role}) ? admin.grantPrivilegesToRole({role}, privileges) : admin.createRole({{role: {role}, privileges, roles: []}}); \
             db.getSiblingDB({db}).grantRolesToUser({user}, [{{role: {role}, db: \"admin\"}}])",
            role = quoted(ROLE)
        )
    }
}

fn privilege(one: &Document) -> Option<(Resource, BTreeSet<String>)> {
    let resource = one.get_document("resource").ok()?;
    let is = |name: &str| resource.get_bool(name).unwrap_or_default();
    let on = if is("anyResource") {
        Resource::Any
    } else if is("cluster") {
        Resource::Cluster
    } else {
        // Others are buckets of time series, which nothing here needs.
        Resource::named(
            resource.get_str("db").ok()?,
            resource.get_str("collection").ok()?,
        )
    };
    let actions = one.get_array("actions").ok()?.iter();
    let actions = actions.filter_map(|action| action.as_str().map(str::to_owned));
    Some((on, actions.collect()))
}

/// One action that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) on: Resource,
    pub(super) action: &'static str,
}

/// As a text in the shell's language.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    fn status(privileges: Vec<Document>, roles: Vec<Document>) -> Privileges {
        let privileges: Vec<Bson> = privileges.into_iter().map(Bson::Document).collect();
        let roles: Vec<Bson> = roles.into_iter().map(Bson::Document).collect();
        Privileges::of(&doc! {"authInfo": {
            "authenticatedUsers": [{"user": "shop", "db": "app"}],
            "authenticatedUserRoles": roles,
            "authenticatedUserPrivileges": privileges,
        }})
    }

    fn on(db: &str, coll: &str, actions: &[&str]) -> Document {
        doc! {"resource": {"db": db, "collection": coll}, "actions": actions.to_vec()}
    }

    fn need(db: &str, coll: &str, action: &'static str) -> Need {
        Need {
            on: Resource::named(db, coll),
            action,
        }
    }

    #[test]
    fn right_is_missed_or_taken_for_granted() {
        let user = status(
            vec![
                on("shop", "orders", &["find"]),
                on("crm", "", &["find"]),
                doc! {"resource": {"cluster": true}, "actions": ["serverStatus"]},
            ],
            vec![],
        );
        for (wanted, expected) in [
            (need("shop", "orders", "find"), true),
            (need("shop", "orders", "changeStream"), false),
            (need("shop", "carts", "find"), false),
            (need("shop", "", "find"), false),
            (need("crm", "people", "find"), true),
            (need("crm", "", "find"), true),
            (need("crm", "system.views", "find"), false),
            (need("", "", "find"), false),
        ] {
            assert_eq!(user.allow(&wanted), expected, "{wanted:?}");
        }
        let cluster = Need {
            on: Resource::Cluster,
            action: "serverStatus",
        };
        assert!(user.allow(&cluster));
        let all = status(
            vec![doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]}],
            vec![],
        );
        assert!(all.allow(&cluster) && all.allow(&need("", "", "find")));
        let everywhere = status(vec![on("", "", &["find"])], vec![]);
        assert!(everywhere.allow(&need("shop", "orders", "find")));
        assert!(!everywhere.allow(&need("local", "oplog.rs", "find")));
    }

    #[test]
    fn command_grants_something_else() {
        let missing = [
            need("shop", "orders", "find"),
            need("shop", "orders", "changeStream"),
            need("mrcon", "resume_tokens", "update"),
        ];
        let privileges = "{resource: {db: \"mrcon\", collection: \"resume_tokens\"}, actions: [\"update\"]}, \
             {resource: {db: \"shop\", collection: \"orders\"}, actions: [\"changeStream\", \"find\"]}";
        assert_eq!(
            status(vec![], vec![]).command(&missing),
            format!(
                "var admin = db.getSiblingDB(\"admin\"), privileges = [{privileges}]; \
                 admin.getRole(\"mrcon\") ? admin.grantPrivilegesToRole(\"mrcon\", privileges) : admin.createRole({{role: \"mrcon\", privileges, roles: []}}); \
                 db.getSiblingDB(\"app\").grantRolesToUser(\"shop\", [{{role: \"mrcon\", db: \"admin\"}}])"
            )
        );
        // A second role of this name would be refused.
        let has = status(vec![], vec![doc! {"role": "mrcon", "db": "admin"}]);
        assert_eq!(
            has.command(&missing),
            format!("db.getSiblingDB(\"admin\").grantPrivilegesToRole(\"mrcon\", [{privileges}])")
        );
    }
}
