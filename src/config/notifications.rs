//! `[notifications]`: events for other services, to RabbitMQ as oslo.messaging sends them.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::Secret;

/// RabbitMQ's port.
const PORT: u16 = 5672;

/// `[notifications]`; the names are those of `[oslo_messaging_notifications]` and
/// `[oslo_messaging_rabbit]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notifications {
    /// The brokers, as oslo.messaging writes them:
    /// `rabbit://user:password@host:5672,user:password@other:5672/vhost`. Absent: no event is
    /// noted and none is sent.
    pub transport_url: Option<Secret>,
    /// The exchange, which is made where there is none (`control_exchange`).
    pub exchange: String,
    /// Each event goes to the queue `<topic>.<priority>` of every topic.
    pub topics: Vec<String>,
    /// Who we say we are; `image.<host name>` where absent.
    pub publisher_id: Option<String>,
    /// Events that are not noted: whole types (`image.send`) or what they begin with (`image.member`,
    /// `task`).
    pub disabled_notifications: Vec<String>,
    /// Whether exchange and queues outlive the broker. Must be what consumers declare.
    pub amqp_durable_queues: bool,
    /// Whether exchange and queues go with their last consumer. Must be what consumers declare.
    pub amqp_auto_delete: bool,
    /// Whether queues are quorum queues, which are durable. Must be what consumers declare.
    pub rabbit_quorum_queue: bool,
    /// Hours an event waits for a broker; then it is dropped, which is logged.
    pub keep_hours: u32,
    /// Events that wait at most; then the oldest is dropped, which is logged.
    pub keep_events: u32,
}

impl Default for Notifications {
    fn default() -> Self {
        Self {
            transport_url: None,
            exchange: "glance".into(),
            topics: vec!["notifications".into()],
            publisher_id: None,
            disabled_notifications: Vec::new(),
            amqp_durable_queues: false,
            amqp_auto_delete: false,
            rabbit_quorum_queue: false,
            keep_hours: 72,
            keep_events: 200_000,
        }
    }
}

/// One broker of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we log in as.
    pub user: String,
    /// With what.
    pub password: Secret,
    /// The virtual host.
    pub vhost: String,
}

impl Notifications {
    /// The brokers, in the order they are tried; none where notifications are off.
    ///
    /// # Errors
    /// What is wrong with `transport_url`; never any part of it that may be a password.
    pub fn brokers(&self) -> Result<Vec<Broker>, String> {
        let Some(url) = &self.transport_url else {
            return Ok(Vec::new());
        };
        let (scheme, rest) = url
            .reveal()
            .split_once("://")
            .ok_or("it is no URL, which begins with rabbit://")?;
        match scheme {
            "rabbit" | "amqp" => {}
            "amqps" => {
                return Err(
                    "brokers are reached without TLS only: put a tunnel before them".into(),
                );
            }
            other => return Err(format!("{other}:// is not offered (rabbit:// is)")),
        }
        if rest.contains('?') {
            return Err("options behind a ? are not known here".into());
        }
        let (hosts, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let vhost = match decode(vhost)? {
            empty if empty.is_empty() => "/".into(),
            vhost => vhost,
        };
        hosts.split(',').map(|host| broker(host, &vhost)).collect()
    }

    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        match self.brokers() {
            Ok(_) => {}
            Err(fault) => faults.push(format!("notifications.transport_url: {fault}")),
        }
        if self.topics.is_empty() {
            faults.push("notifications.topics is empty, allowed one and more".into());
        }
        let names = self.topics.iter().chain([&self.exchange]);
        if names.into_iter().any(|name| name.len() > 200) {
            faults.push("notifications.exchange and topics: at most 200 bytes each".into());
        }
        for (name, n) in [
            ("keep_hours", self.keep_hours),
            ("keep_events", self.keep_events),
        ] {
            if n == 0 {
                faults.push(format!("notifications.{name} is 0, allowed 1 and above"));
            }
        }
    }
}

fn broker(text: &str, vhost: &str) -> Result<Broker, String> {
    let (login, place) = text.rsplit_once('@').unwrap_or(("guest:guest", text));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or("an address lacks its ]")?;
            (host, rest.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err("a host is empty".into());
    }
    let port = match port {
        None => PORT,
        Some(port) => port
            .parse()
            .map_err(|_| format!("{host} has no such port"))?,
    };
    Ok(Broker {
        host: host.to_owned(),
        port,
        user: decode(user)?,
        password: Secret::new(decode(password)?),
        vhost: vhost.to_owned(),
    })
}

fn decode(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| "a part of it is no text")?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(url: &str) -> Result<Vec<Broker>, String> {
        Notifications {
            transport_url: Some(Secret::new(url.into())),
            ..Notifications::default()
        }
        .brokers()
    }

    #[test]
    fn several_hosts_are_read_as_oslo_writes_them() {
        let found = brokers("rabbit://u:p%40ss@a,v@b:1234,[::1]:5/x%2Fy").unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|b| (&*b.host, b.port, &*b.user, b.password.reveal(), &*b.vhost))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", 5672, "u", "p@ss", "x/y"),
                ("b", 1234, "v", "", "x/y"),
                ("::1", 5, "guest", "guest", "x/y"),
            ]
        );
        assert_eq!(brokers("rabbit://h/").unwrap()[0].vhost, "/");
        assert!(Notifications::default().brokers().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_reached_is_refused_and_no_password_told() {
        for url in [
            "host",
            "kafka://h",
            "amqps://u:secret@h",
            "rabbit://u:secret@h?ssl=1",
            "rabbit://u:secret@h/v?ssl=1",
            "rabbit://u:secret@",
            "rabbit://u:secret@h:port",
            "rabbit://u:secret@[::1",
            "rabbit://u:secret%ff@h",
        ] {
            let fault = brokers(url).unwrap_err();
            assert!(!fault.contains("secret"), "{url}: {fault}");
        }
    }
}
