//! The service towards its clients and operators: addresses, bounds, deletion, notifications.

use super::Work;
use crate::config::oslo;

impl Work<'_> {
    pub(super) fn api(&mut self) {
        let host = self.take("DEFAULT", "bind_host");
        let port = self.take("DEFAULT", "bind_port");
        let host = host.unwrap_or_else(|| "0.0.0.0".into());
        let port = port.unwrap_or_else(|| "9292".into());
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        match format!("{host}:{port}").parse::<std::net::SocketAddr>() {
            Ok(listen) => self.set(&["api", "listen"], listen.to_string()),
            Err(_) => self.note("DEFAULT", "bind_host", "is no address"),
        }
        self.text("DEFAULT", "public_endpoint", &["api", "public_endpoint"]);
        for name in ["show_image_direct_url", "show_multiple_locations"] {
            self.flag("DEFAULT", name, &["api", name]);
        }
        self.number("DEFAULT", "limit_param_default", &["api", "limit_default"]);
        self.number("DEFAULT", "api_limit_max", &["api", "limit_max"]);
        let backends = self.take("healthcheck", "backends");
        for backend in oslo::list(&backends.unwrap_or_default()) {
            if backend != "disable_by_file" {
                let why = format!("{backend} is not carried over");
                self.note("healthcheck", "backends", &why);
            }
        }
        self.text(
            "healthcheck",
            "disable_by_file_path",
            &["api", "healthcheck_disable_file"],
        );
    }

    pub(super) fn cors(&mut self) {
        self.words("cors", "allowed_origin", &["cors", "allowed_origins"]);
        for name in ["allow_methods", "allow_headers", "expose_headers"] {
            self.words("cors", name, &["cors", name]);
        }
        self.flag("cors", "allow_credentials", &["cors", "allow_credentials"]);
        self.number("cors", "max_age", &["cors", "max_age"]);
    }

    pub(super) fn delete(&mut self) {
        self.flag("DEFAULT", "delayed_delete", &["delete", "delayed"]);
        self.number("DEFAULT", "scrub_time", &["delete", "scrub_after"]);
    }

    pub(super) fn quota(&mut self) {
        for (theirs, ours) in [
            ("image_property_quota", "properties"),
            ("image_tag_quota", "tags"),
            ("image_member_quota", "members"),
            ("image_location_quota", "locations"),
            ("image_size_cap", "image_size_cap"),
        ] {
            self.number("DEFAULT", theirs, &["quota", ours]);
        }
        self.text("DEFAULT", "user_storage_quota", &["quota", "user_storage"]);
        self.flag(
            "DEFAULT",
            "use_keystone_limits",
            &["quota", "use_keystone_limits"],
        );
        self.text("oslo_limit", "endpoint_id", &["quota", "endpoint_id"]);
        if self.file.get("oslo_limit", "auth_url").is_some() {
            self.account("oslo_limit", &["quota", "keystone"]);
        }
    }

    pub(super) fn notifications(&mut self) {
        const OURS: &str = "notifications";
        let section = "oslo_messaging_notifications";
        let driver = self.take(section, "driver").unwrap_or_default();
        let own = self.take(section, "transport_url");
        let url = self.take("DEFAULT", "transport_url");
        for driver in oslo::list(&driver) {
            match driver.as_str() {
                "messagingv2" => {
                    if let Some(url) = own.clone().or_else(|| url.clone()) {
                        self.set(&[OURS, "transport_url"], url);
                    }
                }
                "noop" => {}
                other => self.note(section, "driver", &format!("{other} is not carried over")),
            }
        }
        // None at all is none of their own, and the usual one is used.
        if let Some(topics) = self.take(section, "topics") {
            self.set(&[OURS, "topics"], oslo::list(&topics));
        }
        self.text("DEFAULT", "control_exchange", &[OURS, "exchange"]);
        self.text("DEFAULT", "default_publisher_id", &[OURS, "publisher_id"]);
        let disabled = "disabled_notifications";
        self.words("DEFAULT", disabled, &[OURS, disabled]);
        for name in [
            "amqp_durable_queues",
            "amqp_auto_delete",
            "rabbit_quorum_queue",
        ] {
            self.flag("oslo_messaging_rabbit", name, &[OURS, name]);
        }
    }
}
