//! Who this cell is. Set once at start; never learnt from a request.

use std::net::IpAddr;

/// The cell's name, and the machine it runs on where the platform has told.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Name in the registry.
    pub(crate) cell: String,
    /// `FLY_MACHINE_ID`: absent off Fly.io (fly-platform 4).
    pub(crate) machine: Option<String>,
    /// `FLY_APP_NAME`.
    pub(crate) app: Option<String>,
    /// `FLY_REGION`: where the machine runs, not where the client came in.
    pub(crate) region: Option<String>,
    /// `FLY_PRIVATE_IP`: the machine's address on the private network.
    pub(crate) address: Option<IpAddr>,
}

/// Whether `id` has the form of a machine id: `[0-9a-z]{6,32}` (fly-platform 3.1).
pub(crate) fn is_machine_id(id: &str) -> bool {
    (6..=32).contains(&id.len())
        && id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

#[cfg(test)]
mod tests {
    use super::is_machine_id;

    #[test]
    fn machine_ids_are_six_to_thirty_two_digits_and_lower_case_letters() {
        for id in ["3d8d9e", "7811ab2c9d04e5", &"a".repeat(32)] {
            assert!(is_machine_id(id), "{id}");
        }
        for id in [
            "",
            "3d8d9",
            "7811AB2C9D04E5",
            "7811ab;app=x",
            "7811ab\r\n",
            &"a".repeat(33),
        ] {
            assert!(!is_machine_id(id), "{id:?}");
        }
    }
}
