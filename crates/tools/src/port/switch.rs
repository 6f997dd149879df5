//! Commands to the switch by its control socket.

use ib_base::errno::{retval_to_string, strerror};
use ib_base::json::Style;
use ib_stream::unixctl::client::{Client, answer_text, find};

/// Sends a command; the answer's text. The error is the switch's, or why there is none.
pub fn call(target: &str, command: &str, args: &[String]) -> Result<String, String> {
    let path = find(target)?;
    let mut client = Client::connect(&path)
        .map_err(|e| format!("cannot connect to \"{}\" ({})", path.display(), strerror(&e)))?;
    match client.call(command, args) {
        Err(e) => Err(format!("{target}: transaction error ({})", retval_to_string(Some(&e)))),
        Ok(Err(error)) => Err(answer_text(&error, Style::SORTED).trim_end().to_owned()),
        Ok(Ok(result)) => Ok(answer_text(&result, Style::SORTED)),
    }
}
