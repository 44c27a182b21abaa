//! The message around a payload: version 2.0 of oslo.messaging's envelope, whose inner message is
//! text in JSON in JSON.

use serde_json::{Value, json};

use crate::catalog::outbox::Event;

/// The text of a message.
pub(super) fn seal(event: &Event, publisher_id: &str) -> String {
    let message = json!({
        "message_id": event.message_id,
        "publisher_id": publisher_id,
        "event_type": event.event_type,
        "priority": event.priority.name(),
        "payload": Value::clone(&event.payload),
        // With a space, as Python prints a time.
        "timestamp": event.created_at.with_micros().replace('T', " "),
        // Consumers drop what they have seen under this id: sending twice is harmless to them.
        "_unique_id": event.message_id.replace('-', ""),
    });
    json!({"oslo.version": "2.0", "oslo.message": message.to_string()}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::notify::Priority;

    #[test]
    fn the_inner_message_is_text() {
        let event = Event {
            id: 1,
            message_id: "11111111-2222-4333-8444-555555555555".into(),
            event_type: "image.create".into(),
            priority: Priority::Info,
            payload: json!({"id": "x"}),
            created_at: Timestamp(1_767_225_600_000_001),
        };
        let outer: Value = serde_json::from_str(&seal(&event, "image.host")).unwrap();
        assert_eq!(outer["oslo.version"], "2.0");
        let inner: Value = serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["timestamp"], "2026-01-01 00:00:00.000001");
        assert_eq!(inner["priority"], "INFO");
        assert_eq!(inner["payload"]["id"], "x");
        assert_eq!(inner["_unique_id"].as_str().unwrap().len(), 32);
    }
}
