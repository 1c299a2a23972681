//! What a Kubernetes quantity (`500m`, `2.5`, `512Mi`, `1e3`) is worth as a number.
//!
//! This module only reads text; it decides no default and rounds only when it is asked for whole units, then
//! always up, as the scheduler does. It exists because kube carries quantities as text and a wrong guess about
//! a CPU limit would size every prefork worker wrongly.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Nano-units in one unit.
const NANOS: i128 = 1_000_000_000;

/// Digits that a quantity may have before and after its point together; Kubernetes keeps fewer.
const DIGITS_MAX: usize = 28;

/// A parsed quantity: a whole number of nano-units (10⁻⁹), which every suffix of Kubernetes divides into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

impl Amount {
    /// Reads `quantity`; `None` if Kubernetes would not accept it or it exceeds 10²⁸ units. What is finer than
    /// one nano-unit is rounded up.
    #[must_use]
    pub fn parse(quantity: &Quantity) -> Option<Self> {
        let text = quantity.0.as_str();
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > DIGITS_MAX || digits.contains('.') {
            return None;
        }
        let mantissa: i128 = digits.parse().ok()?;
        let (factor, exponent) = scale(suffix)?;
        let decimals = i32::try_from(fraction.len()).ok()?;
        let nanos = shift(mantissa.checked_mul(factor)?, exponent - decimals + 9)?;
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// Whole units, rounded up: `1500m` is 2. Saturates at the bounds of `i64`.
    #[must_use]
    pub fn ceil_units(self) -> i64 {
        let floor = self.0.div_euclid(NANOS);
        let ceil = floor + i128::from(self.0.rem_euclid(NANOS) != 0);
        i64::try_from(ceil).unwrap_or(if ceil < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whole units, rounded down: `1500m` is 1. Saturates at the bounds of `i64`.
    #[must_use]
    pub fn floor_units(self) -> i64 {
        let floor = self.0.div_euclid(NANOS);
        i64::try_from(floor).unwrap_or(if floor < 0 { i64::MIN } else { i64::MAX })
    }

    /// This amount times a whole number, or `None` when that is too large to be meant.
    #[must_use]
    pub fn times(self, factor: i64) -> Option<Self> {
        self.0.checked_mul(i128::from(factor)).map(Self)
    }

    /// `units` whole units.
    #[must_use]
    pub fn of_units(units: i64) -> Self {
        Self(i128::from(units) * NANOS)
    }
}

/// What a suffix stands for: a factor, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            // `parse` takes a sign of its own, as Kubernetes does; three characters cover every exponent meant.
            let exponent = if exponent.len() <= 3 {
                exponent.parse().ok()?
            } else {
                return None;
            };
            (1, exponent)
        }
    })
}

/// `value` × 10^`exponent`, rounded up; `None` when it overflows.
fn shift(value: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return if value == 0 {
            Some(0)
        } else {
            value.checked_mul(power?)
        };
    }
    // A divisor beyond i128 leaves less than one nano-unit.
    let Some(power) = power else {
        return Some(i128::from(value > 0));
    };
    Some(value / power + i128::from(value % power != 0))
}

#[cfg(test)]
mod tests {
    use super::{Amount, NANOS, Quantity};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    fn parse(text: &str) -> Option<Amount> {
        Amount::parse(&Quantity(text.to_owned()))
    }

    #[test]
    fn reads_what_kubernetes_reads() {
        let table: &[(&str, i128)] = &[
            ("0", 0),
            ("1", NANOS),
            ("+2", 2 * NANOS),
            ("-2", -2 * NANOS),
            ("500m", NANOS / 2),
            ("2500m", 2_500_000_000),
            ("0.1", 100_000_000),
            (".5", NANOS / 2),
            ("5.", 5 * NANOS),
            ("1.5Gi", 1_610_612_736 * NANOS),
            ("100Mi", 104_857_600 * NANOS),
            ("1Ki", 1_024 * NANOS),
            ("1k", 1_000 * NANOS),
            ("3M", 3_000_000 * NANOS),
            ("1E", 1_000_000_000_000_000_000 * NANOS),
            ("1e3", 1_000 * NANOS),
            ("1E3", 1_000 * NANOS),
            ("12e-1", 1_200_000_000),
            ("1e+2", 100 * NANOS),
            ("250u", 250_000),
            ("7n", 7),
            ("0.1n", 1),
            ("1e-50", 1),
            ("0e90", 0),
            ("8Ei", 8 * (1_i128 << 60) * NANOS),
        ];
        for (text, nanos) in table {
            assert_eq!(parse(text), Some(Amount(*nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for text in [
            "", "m", ".", "-", "1.2.3", "1 Gi", "1gi", "1GB", "1e", "1ee3", "1e1000", "1e99", "--1", "1K",
            "½",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"9".repeat(60)), None);
    }

    #[test]
    fn whole_units_are_rounded_up() {
        let table = [
            ("1", 1),
            ("1001m", 2),
            ("100m", 1),
            ("0", 0),
            ("3.999", 4),
            ("-1.5", -1),
            ("1n", 1),
        ];
        for (text, units) in table {
            assert_eq!(parse(text).map(Amount::ceil_units), Some(units), "{text}");
        }
        assert_eq!(parse("1e20").map(Amount::ceil_units), Some(i64::MAX));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+]?[0-9.]{0,30}[a-zA-Z]{0,2}[-+]?[0-9]{0,4}|.{0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn millis_and_decimals_agree(millis in 0_i64..10_000_000) {
            let decimal = format!("{}.{:03}", millis / 1_000, millis % 1_000);
            prop_assert_eq!(parse(&decimal), parse(&format!("{millis}m")));
            let units = parse(&decimal).map(Amount::ceil_units);
            prop_assert!(units.is_some_and(|units| units * 1_000 >= millis && (units - 1) * 1_000 < millis));
        }
    }
}
