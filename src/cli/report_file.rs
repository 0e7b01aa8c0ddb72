//! Formats a batch report: as JSON if the name of the report file ends in `.json`, otherwise as CSV.

use std::fmt::Write as _;

use serde::Serialize;

use super::json;
use crate::crazyflie::crtp::Radio;
use crate::fleet::{Fleet, Row, RowState};
use crate::job::Outcome;
use crate::report;

/// A row of the report. Text from devices is untrusted: see [`csv_field`].
#[derive(Serialize)]
struct ReportRow<'a> {
    n: usize,
    port: String,
    serial: &'a str,
    radio: Option<String>,
    board: Option<&'a str>,
    before: Option<&'a str>,
    image: Option<&'a str>,
    outcome: &'static str,
    verified: bool,
    booted: Option<bool>,
    runs: Option<&'a str>,
    self_test: Option<&'static str>,
    seconds: Option<f64>,
    bytes_written: u64,
    error: Option<String>,
}

const COLUMNS: &str = "n,port,serial,radio,board,before,image,outcome,verified,booted,runs,self_test,seconds,bytes_written,error";

/// Formats the report. `radio_of` returns a drone's radio address, if known.
pub(super) fn format_report(
    as_json: bool,
    fleet: &Fleet,
    images: &[String],
    radio_of: impl Fn(&Row) -> Option<Radio>,
) -> String {
    let rows = fleet.rows.iter().enumerate();
    let entries: Vec<ReportRow<'_>> =
        rows.map(|(n, row)| build_row(n + 1, row, images, radio_of(row))).collect();
    if as_json {
        return serde_json::to_string_pretty(&entries).unwrap_or_default() + "\n";
    }
    let mut text = format!("{COLUMNS}\r\n");
    for entry in entries {
        let booted = entry.booted.map_or("", |booted| if booted { "true" } else { "false" });
        let seconds = entry.seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default();
        let fields = [
            entry.n.to_string(),
            csv_field(&entry.port),
            csv_field(entry.serial),
            csv_field(&entry.radio.unwrap_or_default()),
            csv_field(entry.board.unwrap_or_default()),
            csv_field(entry.before.unwrap_or_default()),
            csv_field(entry.image.unwrap_or_default()),
            entry.outcome.to_owned(),
            entry.verified.to_string(),
            booted.to_owned(),
            csv_field(entry.runs.unwrap_or_default()),
            entry.self_test.unwrap_or_default().to_owned(),
            seconds,
            entry.bytes_written.to_string(),
            csv_field(&entry.error.unwrap_or_default()),
        ];
        // Writing to a string cannot fail.
        let _ = write!(text, "{}\r\n", fields.join(","));
    }
    text
}

fn build_row<'a>(n: usize, row: &'a Row, images: &'a [String], radio: Option<Radio>) -> ReportRow<'a> {
    let report = row.report.as_deref();
    let outcome = match row.state {
        RowState::Ended(end) => end.json_name(),
        _ => "cancelled",
    };
    let duration = row.started.zip(row.ended).map(|(started, ended)| ended.saturating_sub(started));
    ReportRow {
        n,
        port: row.device.location.to_string(),
        serial: &row.device.strings.serial,
        radio: radio.map(|radio| radio.to_string()),
        board: row.board.as_deref(),
        before: row.before.as_deref(),
        image: report.and_then(|report| images.get(report.image)).map(String::as_str),
        outcome,
        verified: report.is_some_and(|report| report.verified),
        booted: report.and_then(crate::job::Report::booted),
        self_test: report.and_then(|report| json::self_test(&report.health)),
        runs: report.and_then(|report| report.runs.as_deref()),
        seconds: duration.map(|duration| (duration.as_secs_f64() * 1000.0).round() / 1000.0),
        bytes_written: report.map_or(0, |report| report.written),
        error: report.and_then(|report| match &report.outcome {
            Outcome::Failed(failure) => Some(report::failure_problem(failure).to_string()),
            _ => None,
        }),
    }
}

/// Formats a CSV field (RFC 4180). Removes control characters, and puts an apostrophe in front of text that a
/// spreadsheet would treat as a formula.
fn csv_field(text: &str) -> String {
    let clean: String = text.chars().filter(|&c| crate::usb::descriptor::is_printable(c)).collect();
    let is_formula = clean.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{clean}") } else { clean };
    if text.contains([',', '"', '\n', '\r', '\'']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::csv_field;

    #[test]
    fn csv_fields_are_quoted_and_never_start_a_formula() {
        for (text, csv) in [
            ("", ""),
            ("1-4.2", "1-4.2"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@x", "\"'@x\""),
            ("two\nlines", "twolines"),
            ("\t=1", "\"'=1\""),
        ] {
            assert_eq!(csv_field(text), csv, "{text:?}");
        }
    }
}
