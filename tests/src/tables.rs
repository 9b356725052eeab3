//! Large tables, made from a seed.

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator of repeatable numbers (SplitMix64). Not for secrets.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Puts a slice into a random order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

/// The seed of this run: from the clock, or `CONVELO_TESTS_SEED` to repeat one. It is printed.
pub fn seed() -> u64 {
    const VARIABLE: &str = "CONVELO_TESTS_SEED";
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_nanos() as u64);
    let seed = env::var(VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    println!("{VARIABLE}={seed}");
    seed
}

/// A table of customers whose column `email` is the key.
///
/// Half of its distinct keys are in the tables of all parties. With three or more parties, a tenth
/// is in all but one. Addresses are written in capitals, with blanks around them and in full-width
/// letters; some rows repeat an address in another spelling, some have none, and some have
/// something else instead. Other fields hold delimiters, quotes and line ends. The order is random.
pub struct Customers {
    /// The seed of all parties' tables.
    pub seed: u64,
    /// Number of parties.
    pub parties: usize,
    /// Rows of each table, not counting the header.
    pub rows: usize,
}

impl Customers {
    /// The delimiter of a party's table.
    pub fn delimiter(party: usize) -> char {
        [',', ';', '\t'][party % 3]
    }

    /// The file name of a party's table, with an extension that says its format.
    pub fn file(party: usize) -> &'static str {
        ["customers.csv", "customers.csv", "customers.tsv"][party % 3]
    }

    /// Writes the table of a party, counted from 0.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, party: usize, path: &Path) {
        let mut random = Random::new(self.seed ^ (party as u64 + 1).wrapping_mul(0x5851_f42d));
        let people = self.people(party, &mut random);
        let mut file = BufWriter::new(File::create(path).expect("a table can be written"));
        let delimiter = Self::delimiter(party);
        let end = if party % 3 == 1 { "\r\n" } else { "\n" };
        let mark = if party % 4 == 1 { "\u{feff}" } else { "" };
        let d = delimiter;
        let header = format!("{mark}number{d}name{d}email{d}note{end}");
        file.write_all(header.as_bytes()).expect("written");
        let mut line = String::new();
        for (number, person) in people.iter().enumerate() {
            line.clear();
            let quirk = random.next();
            let note = match quirk % 64 {
                0 => format!("\"a{d}b\""),
                1 => "\"said \"\"no\"\"\"".to_owned(),
                2 => "\"two\nlines\"".to_owned(),
                3 => "\" \"".to_owned(),
                _ => format!("{:04x}", quirk >> 48),
            };
            let email = self.spelling(*person, random.next());
            line += &format!("{number}{d}Customer {number} of {party}{d}{email}{d}{note}{end}");
            file.write_all(line.as_bytes()).expect("written");
        }
        file.flush().expect("written");
    }

    /// The people of the rows; all but some have an address.
    fn people(&self, party: usize, random: &mut Random) -> Vec<Person> {
        let rows = self.rows;
        let (repeated, blank, invalid) = (rows / 40, rows / 200, rows / 200);
        let distinct = rows - repeated - blank - invalid;
        let common = distinct / 2;
        let almost = if self.parties > 2 { distinct / 10 } else { 0 };
        let mut people: Vec<Person> = (0..common).map(|n| Person::Of(Group::All, n)).collect();
        // Group g of those that all but one have is split among the parties that lack it.
        let lacking = |n: usize| n % self.parties;
        people.extend(
            (0..almost).filter(|n| lacking(*n) != party).map(|n| Person::Of(Group::AllButOne, n)),
        );
        let own = distinct - people.len();
        people.extend((0..own).map(|n| Person::Of(Group::One(party), n)));
        for _ in 0..repeated {
            people.push(people[random.below(distinct)]);
        }
        people.extend(std::iter::repeat_n(Person::Blank, blank));
        people.extend(std::iter::repeat_n(Person::Invalid, invalid));
        random.shuffle(&mut people);
        people
    }

    fn spelling(&self, person: Person, quirk: u64) -> String {
        let (group, number) = match person {
            Person::Of(group, number) => (group, number),
            Person::Blank => {
                return ["", " ", "\u{a0}", "\u{3000} "][(quirk % 4) as usize].to_owned();
            }
            Person::Invalid => {
                return ["n/a", "none@", "two@at@example.org", "ann lee@example.org", "@"]
                    [(quirk % 5) as usize]
                    .to_owned();
            }
        };
        let group = match group {
            Group::All => 0,
            Group::AllButOne => 1,
            Group::One(party) => 2 + party as u64,
        };
        let id = Random::new(self.seed ^ (group << 48) ^ number as u64).next();
        let domain = number % 977;
        let plain = if number % 50 == 0 {
            format!("jos\u{e9}.{id:x}@b\u{fc}cher{domain}.example")
        } else {
            format!("user.{id:x}@example{domain}.org")
        };
        match quirk % 16 {
            0 | 1 => plain.to_uppercase(),
            2 => format!(" {plain}"),
            3 => format!("{plain}  "),
            4 => plain.replacen("user", "User", 1),
            5 => plain.replacen("user", "\u{ff55}\u{ff53}\u{ff45}\u{ff52}", 1),
            6 => plain.replace('\u{e9}', "e\u{301}").replace('\u{fc}', "u\u{308}"),
            7 => format!("\"{plain}\""),
            _ => plain,
        }
    }
}

#[derive(Clone, Copy)]
enum Person {
    Of(Group, usize),
    Blank,
    Invalid,
}

#[derive(Clone, Copy)]
enum Group {
    All,
    AllButOne,
    One(usize),
}
