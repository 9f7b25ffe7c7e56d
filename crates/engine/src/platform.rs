//! Whether an image is for this machine, or for the platform that the user names. The image store keeps one platform of each
//! image, as dockerd's classic one.

use image::ImageRecord;
use oci_types::Platform;

use crate::EngineError;

/// Refuses an image of another platform than the one that is asked for; without one, a foreign image gives a warning.
pub(crate) fn check(image: &ImageRecord, name: &str, asked: Option<&str>) -> Result<Option<String>, EngineError> {
    let have = &image.platform;
    match asked.filter(|text| !text.is_empty()) {
        Some(text) => {
            let wanted = Platform::parse(text);
            if wanted.is_ok_and(|wanted| runs(&wanted, have)) {
                return Ok(None);
            }
            let name =
                name.strip_prefix("docker.io/").map_or(name, |rest| rest.strip_prefix("library/").unwrap_or(rest));
            Err(EngineError::not_found(format!(
                "image with reference {name} was found but its platform ({have}) does not match the specified platform ({text})",
            )))
        }
        None => {
            let host = Platform { variant: host_variant().to_owned(), ..Platform::host() };
            let warning = || {
                format!(
                    "The requested image's platform ({have}) does not match the detected host platform ({host}) and no specific platform was requested"
                )
            };
            Ok((!runs(&host, have)).then(warning))
        }
    }
}

/// Whether an image of the platform `have` runs where `wanted` is asked for. An image that names no variant is taken for any.
fn runs(wanted: &Platform, have: &Platform) -> bool {
    let (older, own) = (level(&have.variant), level(&wanted.variant));
    let variant_fits = have.variant.is_empty()
        || have.variant == wanted.variant
        || matches!((older, own), (Some(older), Some(own)) if older <= own)
        || (wanted.variant.is_empty() && have.variant == usual_variant(&have.architecture));
    let same = have.architecture == wanted.architecture && variant_fits;
    let narrower =
        matches!((wanted.architecture.as_str(), have.architecture.as_str()), ("amd64", "386") | ("arm64", "arm"));
    have.os == wanted.os && (same || narrower)
}

/// `v7` is 7: a processor runs what is for lower levels.
fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

/// The variant that is meant when none is named.
fn usual_variant(architecture: &str) -> &'static str {
    match architecture {
        "amd64" => "v1",
        "arm" => "v7",
        "arm64" => "v8",
        _ => "",
    }
}

/// The level of the x86-64 instruction set that this machine has.
#[cfg(target_arch = "x86_64")]
fn host_variant() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "v1",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_run_on_their_platform_and_on_wider_ones() {
        for (wanted, have, fits) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64/v3", "linux/amd64/v2", true),
            ("linux/amd64/v3", "linux/386", true),
            ("linux/arm64", "linux/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v6", "linux/arm", true),
            ("linux/arm", "linux/arm/v7", true),
            ("windows/amd64", "linux/amd64", false),
        ] {
            let parse = |text| Platform::parse(text).unwrap();
            assert_eq!(runs(&parse(wanted), &parse(have)), fits, "{wanted} {have}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_machine_has_a_level() {
        assert!(level(host_variant()).is_some());
    }
}
