//! Tables on standard output, in the five formats that the database tools share.
//!
//! A [`Table`] is a caption, headings and rows of [`Cell`]s; a [`Style`] says how to print it. Cells that come from
//! the database are made for a style (`Style::cell`), because `-f json` wants them in the protocol's JSON form and
//! the other formats as text in one of three flavours (`-d`). A [`Printer`] prints the tables of one run: all but
//! the first are set off from the one before by an empty line, where the format is for people.
//!
//! Widths are bytes, as programs that cut columns out of the output expect; a truncated cell still ends on a
//! character boundary.

use ib_base::json::{self, Json, Object};

/// How a table is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// A line a cell, an empty line between rows.
    List,
    /// HTML.
    Html,
    /// RFC 4180.
    Csv,
    /// One JSON object a table.
    Json,
}

impl Format {
    /// The format called `name`.
    pub fn from_name(name: &str) -> Result<Format, String> {
        Ok(match name {
            "table" => Format::Table,
            "list" => Format::List,
            "html" => Format::Html,
            "csv" => Format::Csv,
            "json" => Format::Json,
            _ => return Err(format!("unknown output format \"{name}\"")),
        })
    }
}

/// How a value of the database is written in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CellStyle {
    /// As the command line writes values: quotes and brackets where they are needed to read it back.
    #[default]
    String,
    /// Without punctuation, for scripts.
    Bare,
    /// As the protocol writes them.
    Json,
}

impl CellStyle {
    /// The style called `name`.
    pub fn from_name(name: &str) -> Result<CellStyle, String> {
        Ok(match name {
            "string" => CellStyle::String,
            "bare" => CellStyle::Bare,
            "json" => CellStyle::Json,
            _ => return Err(format!("unknown data format \"{name}\"")),
        })
    }
}

/// Everything that the output options say.
#[derive(Clone, Debug)]
pub struct Style {
    /// `-f`
    pub format: Format,
    /// `-d`
    pub cell_style: CellStyle,
    /// Cleared by `--no-headings`.
    pub headings: bool,
    /// `--pretty`
    pub pretty: bool,
    /// `--max-column-width`, in bytes; 0 for no limit.
    pub max_column_width: usize,
}

impl Style {
    /// The default style with layout `format`.
    pub fn new(format: Format) -> Style {
        Style { format, cell_style: CellStyle::String, headings: true, pretty: false, max_column_width: 0 }
    }

    /// Applies an output option by its long name. `Ok(false)`: it is not one.
    pub fn apply_option(&mut self, name: &str, argument: Option<&str>) -> Result<bool, String> {
        let argument = argument.unwrap_or("");
        match name {
            "format" => self.format = Format::from_name(argument)?,
            "data" => self.cell_style = CellStyle::from_name(argument)?,
            "no-headings" => self.headings = false,
            "pretty" => self.pretty = true,
            "bare" => {
                self.format = Format::List;
                self.cell_style = CellStyle::Bare;
                self.headings = false;
            }
            // Like the other numbers of this family of tools, read up to the first non-digit.
            "max-column-width" => {
                let digits = argument.bytes().take_while(u8::is_ascii_digit).count();
                self.max_column_width = argument[..digits].parse().unwrap_or(0);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn json_style(&self) -> json::Style {
        if self.pretty { json::Style::PRETTY_SORTED } else { json::Style::SORTED }
    }
}

/// What stands in one place of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text as it is.
    Text(String),
    /// A JSON value, printed compactly and with its members sorted.
    Json(Json),
}

impl Cell {
    /// A cell without content.
    pub fn empty() -> Cell {
        Cell::Text(String::new())
    }

    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Json(json) => json.to_text(json::Style::SORTED),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Printed above the table.
    pub caption: Option<String>,
    /// When the rows were so, as text; printed above the caption.
    pub timestamp: Option<String>,
    /// One a column.
    pub headings: Vec<String>,
    /// As many cells a row as there are headings.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table of the given columns.
    pub fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { headings: headings.into_iter().map(Into::into).collect(), ..Table::default() }
    }

    /// The table with a caption.
    pub fn with_caption(mut self, caption: impl Into<String>) -> Table {
        self.caption = Some(caption.into());
        self
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new();
        if let Some(caption) = &self.caption {
            object.insert("caption", caption.as_str());
        }
        if let Some(time) = &self.timestamp {
            object.insert("time", time.as_str());
        }
        object.insert("headings", Json::array(self.headings.iter().map(|h| h.as_str().into())));
        let cell = |cell: &Cell| match cell {
            Cell::Text(text) => Json::string(text.as_str()),
            Cell::Json(json) => json.clone(),
        };
        object.insert("data", Json::array(self.rows.iter().map(|row| Json::array(row.iter().map(cell)))));
        Json::Object(object)
    }
}

/// Prints the tables of one run.
#[derive(Debug, Default)]
pub struct Printer {
    printed: bool,
}

impl Printer {
    /// A printer that has printed nothing.
    pub fn new() -> Printer {
        Printer::default()
    }

    /// Appends `table` to `out`.
    pub fn print(&mut self, table: &Table, style: &Style, out: &mut String) {
        let apart = std::mem::replace(&mut self.printed, true);
        match style.format {
            Format::Table => {
                separate(apart, table, out);
                print_table(table, style, out);
            }
            Format::List => {
                separate(apart, table, out);
                print_list(table, style, out);
            }
            Format::Csv => {
                separate(apart, table, out);
                print_csv(table, style, out);
            }
            Format::Html => print_html(table, style, out),
            Format::Json => {
                out.push_str(&table.to_json().to_text(style.json_style()));
                out.push('\n');
            }
        }
    }
}

fn separate(apart: bool, table: &Table, out: &mut String) {
    if apart {
        out.push('\n');
    }
    for line in [&table.timestamp, &table.caption].into_iter().flatten() {
        out.push_str(line);
        out.push('\n');
    }
}

fn print_table(table: &Table, style: &Style, out: &mut String) {
    let cells: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(Cell::text).collect()).collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let limited = if style.max_column_width > 0 { widest.min(style.max_column_width) } else { widest };
        if style.headings { limited.max(table.headings[column].len()) } else { limited }
    };
    let widths: Vec<usize> = (0..table.headings.len()).map(width).collect();

    let mut line = |row: &mut dyn Iterator<Item = &str>| {
        // Blanks are owed until a cell needs them, so that lines do not end in any.
        let mut owed = 0;
        for (i, cell) in row.enumerate() {
            let cell = truncate(cell, widths[i]);
            if !cell.is_empty() {
                out.extend(std::iter::repeat_n(' ', owed));
                out.push_str(cell);
                owed = 0;
            }
            owed += widths[i] - cell.len() + 1;
        }
        out.push('\n');
    };
    if style.headings {
        line(&mut table.headings.iter().map(String::as_str));
        let rules: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        line(&mut rules.iter().map(String::as_str));
    }
    for row in &cells {
        line(&mut row.iter().map(String::as_str));
    }
}

fn truncate(text: &str, width: usize) -> &str {
    if text.len() <= width {
        return text;
    }
    let end = (0..=width).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..end]
}

fn print_list(table: &Table, style: &Style, out: &mut String) {
    for (i, row) in table.rows.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        for (heading, cell) in table.headings.iter().zip(row) {
            if style.headings {
                out.push_str(&format!("{heading:<20}: "));
            }
            out.push_str(&cell.text());
            out.push('\n');
        }
    }
}

fn print_csv(table: &Table, style: &Style, out: &mut String) {
    let mut line = |row: &mut dyn Iterator<Item = String>| {
        for (i, cell) in row.enumerate() {
            if i > 0 {
                out.push(',');
            }
            if cell.contains(['\n', '"', ',']) {
                out.push_str(&format!("\"{}\"", cell.replace('"', "\"\"")));
            } else {
                out.push_str(&cell);
            }
        }
        out.push('\n');
    };
    if style.headings {
        line(&mut table.headings.iter().cloned());
    }
    for row in &table.rows {
        line(&mut row.iter().map(Cell::text));
    }
}

fn print_html(table: &Table, style: &Style, out: &mut String) {
    if let Some(time) = &table.timestamp {
        out.push_str(time);
        out.push('\n');
    }
    out.push_str("<table border=1>\n");
    if let Some(caption) = &table.caption {
        out.push_str("    <caption>");
        escape_html(caption, out);
        out.push_str("</caption>\n");
    }
    if style.headings {
        out.push_str("  <tr>\n");
        for heading in &table.headings {
            out.push_str("    <th>");
            escape_html(heading, out);
            out.push_str("</th>\n");
        }
        out.push_str("  </tr>\n");
    }
    for row in &table.rows {
        out.push_str("  <tr>\n");
        for (heading, cell) in table.headings.iter().zip(row) {
            out.push_str("    <td>");
            html_cell(&cell.text(), heading == "_uuid", out);
            out.push_str("</td>\n");
        }
        out.push_str("  </tr>\n");
    }
    out.push_str("</table>\n");
}

const UUID_LEN: usize = 36;

/// True if `bytes` starts with a UUID.
fn starts_with_uuid(bytes: &[u8]) -> bool {
    bytes.len() >= UUID_LEN
        && bytes[..UUID_LEN].iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Writes a cell with each UUID shortened to 8 digits: the row's own is an anchor, all others link to theirs.
fn html_cell(text: &str, own: bool, out: &mut String) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut i = 0;
    while i < bytes.len() {
        if !starts_with_uuid(&bytes[i..]) {
            i += 1;
            continue;
        }
        escape_html(&text[plain..i], out);
        let uuid = &text[i..i + UUID_LEN];
        let attribute = if own { format!("name=\"{uuid}\"") } else { format!("href=\"#{uuid}\"") };
        out.push_str(&format!("<a {attribute}>{}</a>", &uuid[..8]));
        i += UUID_LEN;
        plain = i;
    }
    escape_html(&text[plain..], out);
}

fn escape_html(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
}

/// The option lines that all tools with tables have in their `--help`.
pub const HELP: &str = "\
\nOutput formatting options:
  -f, --format=FORMAT         set output formatting to FORMAT
                              (\"table\", \"list\", \"html\", \"csv\", or \"json\")
  -d, --data=FORMAT           set table cell output formatting to
                              FORMAT (\"string\", \"bare\", or \"json\")
  --no-headings               omit table heading row
  --pretty                    pretty-print JSON in output
  --bare                      equivalent to \"--format=list --data=bare --no-headings\"
";

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut t = Table::new(["_uuid", "n"]).with_caption("A table");
        t.rows.push(vec!["478cd708-055a-48bc-b87c-8f3a1a6d2b3b".into(), "zz".into()]);
        t.rows.push(vec!["x".into(), "\"a<b>,d\"".into()]);
        t
    }

    fn check(style: &Style, expect: &str) {
        let mut out = String::new();
        Printer::new().print(&sample(), style, &mut out);
        assert_eq!(out, expect);
    }

    #[test]
    fn aligned() {
        check(
            &Style::new(Format::Table),
            "A table\n\
             _uuid                                n\n\
             ------------------------------------ --------\n\
             478cd708-055a-48bc-b87c-8f3a1a6d2b3b zz\n\
             x                                    \"a<b>,d\"\n",
        );
        let style = Style { max_column_width: 3, headings: false, ..Style::new(Format::Table) };
        check(&style, "A table\n478 zz\nx   \"a<\n");
        let style = Style { max_column_width: 3, ..Style::new(Format::Table) };
        check(&style, "A table\n_uuid n\n----- ---\n478cd zz\nx     \"a<\n");
    }

    #[test]
    fn lines_do_not_end_in_blanks() {
        let table =
            Table { rows: vec![vec!["".into(), "x".into(), "".into()]], ..Table::new(["a", "b", "c"]) };
        let mut out = String::new();
        Printer::new().print(&table, &Style::new(Format::Table), &mut out);
        assert_eq!(out, "a b c\n- - -\n  x\n");
    }

    #[test]
    fn lists() {
        check(
            &Style::new(Format::List),
            "A table\n_uuid               : 478cd708-055a-48bc-b87c-8f3a1a6d2b3b\nn                   : zz\n\n\
             _uuid               : x\nn                   : \"a<b>,d\"\n",
        );
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        check(
            &Style::new(Format::Csv),
            "A table\n_uuid,n\n478cd708-055a-48bc-b87c-8f3a1a6d2b3b,zz\nx,\"\"\"a<b>,d\"\"\"\n",
        );
    }

    #[test]
    fn html_links_uuids() {
        let mut out = String::new();
        html_cell("[478cd708-055a-48bc-b87c-8f3a1a6d2b3b] <x>", false, &mut out);
        assert_eq!(out, "[<a href=\"#478cd708-055a-48bc-b87c-8f3a1a6d2b3b\">478cd708</a>] &lt;x&gt;");
        out.clear();
        html_cell("478cd708-055a-48bc-b87c-8f3a1a6d2b3b", true, &mut out);
        assert_eq!(out, "<a name=\"478cd708-055a-48bc-b87c-8f3a1a6d2b3b\">478cd708</a>");
    }

    #[test]
    fn json_objects() {
        check(
            &Style::new(Format::Json),
            "{\"caption\":\"A table\",\"data\":[[\"478cd708-055a-48bc-b87c-8f3a1a6d2b3b\",\"zz\"],\
             [\"x\",\"\\\"a<b>,d\\\"\"]],\"headings\":[\"_uuid\",\"n\"]}\n",
        );
    }

    #[test]
    fn later_tables_are_set_apart() {
        let mut printer = Printer::new();
        let mut out = String::new();
        let table = Table { rows: vec![vec!["v".into()]], ..Table::new(["h"]) };
        let style = Style { headings: false, ..Style::new(Format::List) };
        printer.print(&table, &style, &mut out);
        printer.print(&table, &style, &mut out);
        assert_eq!(out, "v\n\nv\n");
    }

    #[test]
    fn options_report_unknown_formats() {
        let mut style = Style::new(Format::List);
        assert_eq!(style.apply_option("format", Some("x")), Err("unknown output format \"x\"".into()));
        assert_eq!(style.apply_option("data", Some("x")), Err("unknown data format \"x\"".into()));
        assert_eq!(style.apply_option("bare", None), Ok(true));
        assert_eq!(style.apply_option("db", Some("x")), Ok(false));
        assert!(!style.headings);
    }
}
