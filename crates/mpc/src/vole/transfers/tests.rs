use getrandom::SysRng;
use rand_core::UnwrapErr;

use super::*;
use crate::message::{MessageError, PLACE_BYTES};

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn session(transfers: usize, columns: usize) -> Session {
    Session { sid: [7; 32], transfers, columns, hybrid: Hybrid::No }
}

fn value(transfer: usize, column: usize) -> u64 {
    (transfer as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(u32::try_from(column).unwrap())
}

fn chosen(transfer: usize) -> bool {
    value(transfer, 0).is_multiple_of(3)
}

fn ready(session: Session) -> (Receiver, Sender) {
    let rng = &mut rng();
    let (start, choice) = SenderStart::new(session, rng);
    let (receiver, answer) = Receiver::new(session, &choice, rng).unwrap();
    (receiver, start.answer(&answer).unwrap())
}

#[test]
fn totals_differ_by_the_sum() {
    for transfers in [0, 1, 2, 127, 128, 129, TRANSFERS_EACH, TRANSFERS_EACH + 1, 40_000] {
        for columns in [1, 3] {
            let (mut receiver, mut sender) = ready(session(transfers, columns));
            while let Some(choices) = receiver.choices(chosen) {
                receiver.values(&sender.choices(&choices, value).unwrap()).unwrap();
            }
            let (all, shares) = (receiver.totals().ok().unwrap(), sender.totals().ok().unwrap());
            for column in 0..columns {
                let sum: u128 = (0..transfers)
                    .filter(|transfer| chosen(*transfer))
                    .map(|transfer| u128::from(value(transfer, column)))
                    .sum();
                assert_eq!(reduced(all[column].wrapping_sub(shares[column])), sum);
            }
        }
    }
}

/// Choices that are sent before the values for earlier ones have come.
#[test]
fn choices_ahead_of_values() {
    let (mut receiver, mut sender) = ready(session(3 * TRANSFERS_EACH, 1));
    let choices: Vec<_> = std::iter::from_fn(|| receiver.choices(|_| true)).collect();
    assert_eq!(choices.len(), 3);
    let values: Vec<_> =
        choices.iter().map(|choices| sender.choices(choices, |_, _| 1).unwrap()).collect();
    let place = Some(Error::Message(MessageError::Place));
    assert_eq!(receiver.values(&values[1]).err(), place);
    for values in &values {
        receiver.values(values).unwrap();
    }
    let (all, shares) = (receiver.totals().ok().unwrap(), sender.totals().ok().unwrap());
    assert_eq!(reduced(all[0].wrapping_sub(shares[0])), 3 * TRANSFERS_EACH as u128);
}

/// The same values under the same choices are masked differently in each place and message, so
/// that their differences tell nothing.
#[test]
fn no_mask_is_used_twice() {
    let (mut receiver, mut sender) = ready(session(2 * TRANSFERS_EACH, 2));
    let mut seen = std::collections::BTreeSet::new();
    while let Some(choices) = receiver.choices(|_| false) {
        let values = sender.choices(&choices, |_, _| 0).unwrap();
        assert!(read(&values[PLACE_BYTES..]).all(|value| seen.insert(value)));
        receiver.values(&values).unwrap();
    }
    assert_eq!(seen.len(), 4 * TRANSFERS_EACH);
}

/// What the sender sees of choices is as good as random, whatever they are.
#[test]
fn choices_look_random() {
    for chosen in [false, true] {
        let (mut receiver, _sender) = ready(session(TRANSFERS_EACH, 1));
        let choices = receiver.choices(|_| chosen).unwrap();
        let content = &choices[PLACE_BYTES..];
        let ones: u32 = content.iter().map(|byte| byte.count_ones()).sum();
        let bits = 8.0 * f64::from(u32::try_from(content.len()).unwrap());
        assert!((f64::from(ones) - bits / 2.0).abs() < 3.0 * bits.sqrt(), "{ones}");
    }
}

#[test]
fn an_integer_has_twelve_bytes() {
    let mut message = Vec::new();
    write(u128::MAX, &mut message);
    write(5, &mut message);
    assert_eq!(read(&message).collect::<Vec<_>>(), [(1 << 96) - 1, 5]);
    assert_eq!(reduced(1 << 96 | 7), 7);
}
