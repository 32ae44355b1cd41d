//! A plaintext has one type, with one door.
//!
//! [`Secret`] is wiped when dropped and implements nothing that could show, compare or copy it by accident: no `Debug`,
//! `Display`, `Clone`, `Serialize` or `PartialEq` (the assertions below do not compile otherwise). [`Secret::expose`] is
//! the only way in, so that `grep 'expose()'` lists every place where a plaintext is touched.

use zeroize::Zeroize;

/// A plaintext: any bytes, wiped on drop.
///
/// ```
/// let secret = vouchsafe::secret::Secret::new(b"s3cret".to_vec());
/// assert_eq!(secret.expose(), b"s3cret");
/// ```
///
/// It cannot be printed:
/// ```compile_fail,E0277
/// let secret = vouchsafe::secret::Secret::new(b"s3cret".to_vec());
/// println!("{:?}", secret);
/// ```
/// It cannot be cloned:
/// ```compile_fail,E0599
/// let secret = vouchsafe::secret::Secret::new(b"s3cret".to_vec());
/// let copy = secret.clone();
/// ```
/// It cannot be compared by `==`, which would tell its prefix by time:
/// ```compile_fail,E0369
/// let secret = vouchsafe::secret::Secret::new(b"s3cret".to_vec());
/// assert!(secret == secret);
/// ```
pub struct Secret {
    bytes: Vec<u8>,
}

impl Secret {
    /// Takes over `bytes` without a copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The plaintext. Keep what you make of it short-lived, and in a buffer that is wiped.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// A second copy, for the few places where one value has two uses: a template and a variable, a store and a read-back.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { bytes: self.bytes.clone() }
    }

    /// Whether both hold the same bytes, in a time that does not depend on where they differ.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len()
            && self.bytes.iter().zip(&other.bytes).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Fails to compile, by an ambiguous call, if `$type` implements `$trait`.
macro_rules! assert_lacks {
    ($type:ty: $($trait:path),+) => {
        $(const _: fn() = || {
            trait Lacks<Marker> {
                fn check() {}
            }
            impl<T: ?Sized> Lacks<()> for T {}
            struct Has;
            impl<T: ?Sized + $trait> Lacks<Has> for T {}
            let _ = <$type as Lacks<_>>::check;
        };)+
    };
}

assert_lacks!(Secret: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize, PartialEq, AsRef<[u8]>, AsRef<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sameness_is_by_content() {
        let a = Secret::new(b"abc".to_vec());
        assert!(a.same_as(&a.duplicate()));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!a.same_as(&Secret::new(other.to_vec())));
        }
    }
}
