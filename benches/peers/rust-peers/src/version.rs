//! The exact versions that were built.

/// The version of a package, from the lock file.
pub fn locked(package: &str) -> &'static str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../../Cargo.lock");
    let version = lock.split_once(entry.as_str()).and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("unknown")
}
