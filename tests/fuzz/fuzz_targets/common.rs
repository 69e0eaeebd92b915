//! What every target does with the bytes that it is given.

use counterpoise::format::{Entry, Format, Reader, Source, Writer};
use counterpoise::sample::Record;

/// Reads `text` to its end, writes in every format what it gave, and holds the readers to what
/// they promise.
pub fn read(source: Option<Source>, text: &[u8]) {
    let open = || match source {
        Some(source) => Reader::of(source, "fuzz", text),
        None => Reader::new("fuzz", text),
    };
    let formats = [Format::Jsonl, Format::Gobench, Format::Csv];
    let mut writers = formats.map(|format| Writer::new(format, Vec::new()));
    let lines = text.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    let mut samples = 0;
    let mut reader = open();
    for record in &mut reader {
        match &record {
            Record::Syntax(error) => assert!((1..=lines).contains(&error.line), "{error}"),
            Record::Sample(_) => samples += 1,
            _ => {}
        }
        for writer in &mut writers {
            writer.write(&record).expect("memory takes all");
        }
    }
    assert!(reader.error().is_none() && reader.next().is_none());
    // Lent or given, they are as many.
    let mut reader = open();
    while let Some(entry) = reader.entry() {
        samples -= i64::from(matches!(
            entry,
            Entry::Line(_) | Entry::Record(Record::Sample(_))
        ));
    }
    assert_eq!(samples, 0);
}
