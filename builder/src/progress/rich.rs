//! Events on a terminal: finished work is one line each, and running work is shown below and updated.
//!
//! `indicatif` draws. The lines are made here, each cut to the terminal's width and without control characters.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use console::{Style, Term, truncate_str};
use errors::terminal;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::plain::{DROPPED, fetched, of_total, sent};
use super::{Event, Label, Show};

/// Lines of output shown below a running step.
const TAIL: usize = 4;
/// The most of them in total when several steps run.
const MOST_LINES: usize = 12;
/// The interval of updates of times and spinners.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Rich {
    bars: MultiProgress,
    /// An empty line, always the last, where the cursor rests.
    bottom: ProgressBar,
    running: BTreeMap<Label, Running>,
    /// The current transfer.
    transfer: Option<ProgressBar>,
    styles: Styles,
}

/// A running step.
struct Running {
    head: ProgressBar,
    instruction: String,
    /// The last lines of output, the newest last.
    last: VecDeque<String>,
    tail: Vec<ProgressBar>,
}

struct Styles {
    good: Style,
    bad: Style,
    look: Style,
    faint: Style,
}

impl Styles {
    /// Without colours if the user wants none (no-color.org).
    fn new() -> Self {
        let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = || Style::new().for_stderr().force_styling(coloured);
        Self { good: style().green(), bad: style().red(), look: style().yellow(), faint: style().dim() }
    }
}

impl Rich {
    pub(super) fn new() -> Self {
        let terminal = Terminal(Term::buffered_stderr());
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(terminal)));
        let bottom = bars.add(ProgressBar::new_spinner().with_style(style(" ")));
        Self { bars, bottom, running: BTreeMap::new(), transfer: None, styles: Styles::new() }
    }

    /// Prints a permanent line.
    fn line(&self, mark: &Style, sign: &str, text: &str, end: &str) {
        let width = width();
        let room = width.saturating_sub(sign.chars().count() + end.chars().count() + 3);
        let text = truncate_str(text, room, "…");
        let padding = room.saturating_sub(console::measure_text_width(&text));
        let line = format!("{} {text}{:padding$} {end}", mark.apply_to(sign), "");
        self.print(line.trim_end());
    }

    fn print(&self, line: &str) {
        self.bottom.tick();
        let _ = self.bars.println(line);
    }

    /// Adds a line for running work below the others.
    fn bar(&self, message: String) -> ProgressBar {
        let bar = self.bars.insert_before(&self.bottom, ProgressBar::new_spinner().with_style(head_style()));
        bar.set_message(message);
        bar.enable_steady_tick(TICK);
        bar
    }

    fn begin(&mut self, label: &Label, instruction: &str) {
        let instruction = terminal::cell(instruction);
        let head = self.bar(format!("{}  {instruction}", terminal::cell(&label.to_string())));
        let running = Running { head, instruction, last: VecDeque::new(), tail: Vec::new() };
        self.running.insert(label.clone(), running);
    }

    fn output(&mut self, label: &Label, text: &str) {
        let most = (MOST_LINES / self.running.len().max(1)).clamp(1, TAIL);
        let Some(running) = self.running.get_mut(label) else { return };
        running.last.push_back(terminal::cell(text));
        while running.last.len() > most {
            running.last.pop_front();
        }
        while running.tail.len() > most
            && let Some(bar) = running.tail.pop()
        {
            self.bars.remove(&bar);
        }
        if running.tail.len() < running.last.len() {
            let above = running.tail.last().unwrap_or(&running.head);
            let bar = ProgressBar::new_spinner().with_style(tail_style());
            running.tail.push(self.bars.insert_after(above, bar));
        }
        for (bar, line) in running.tail.iter().zip(&running.last) {
            bar.set_message(self.styles.faint.apply_to(line).to_string());
        }
    }

    /// Removes the lines of a step; returns its instruction.
    fn finish(&mut self, label: &Label) -> String {
        let Some(running) = self.running.remove(label) else { return String::new() };
        for bar in running.tail.iter().chain([&running.head]) {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
        running.instruction
    }

    fn begin_transfer(&mut self, message: String) {
        self.end_transfer();
        self.transfer = Some(self.bar(message));
    }

    fn move_transfer(&self, message: String) {
        if let Some(bar) = &self.transfer {
            bar.set_message(message);
        }
    }

    fn end_transfer(&mut self) {
        if let Some(bar) = self.transfer.take() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

impl Show for Rich {
    fn show(&mut self, event: &Event<'_>) {
        let cell = terminal::cell;
        match *event {
            Event::Platform { platform } => {
                self.line(&self.styles.faint, "·", &format!("building for {}", cell(platform)), "");
            }
            Event::Base { name } => self.begin_transfer(format!("base {}", cell(name))),
            Event::BaseBytes { name, bytes, total } => {
                self.move_transfer(format!("base {}  {}", cell(name), of_total(bytes, total)));
            }
            Event::BaseFetched { name, size, bytes, seconds, .. } => {
                self.end_transfer();
                let text = format!("base {}  {}", cell(name), fetched(size, bytes, seconds));
                self.line(&self.styles.good, "✔", &text, "");
            }
            Event::Step { label, instruction, .. } => self.begin(label, instruction),
            Event::Fetching { label, url } => self.output(label, &format!("fetching {url}")),
            Event::Output { label, text } => self.output(label, text),
            Event::StepDone { label, seconds, is_configuration, .. } => {
                let text = format!("{}  {}", cell(&label.to_string()), self.finish(label));
                let end = if is_configuration { String::new() } else { format!("{seconds:.1}s") };
                self.line(&self.styles.good, "✔", &text, &end);
            }
            Event::Packing { label } => self.begin(label, "compressing its layer"),
            Event::Layer { label, .. } => drop(self.finish(label)),
            Event::StepFailed { label, seconds, .. } => {
                let text = format!("{}  {}", cell(&label.to_string()), self.finish(label));
                self.line(&self.styles.bad, "✘", &text, &format!("{seconds:.1}s"));
            }
            Event::StepDropped { label, .. } => {
                self.finish(label);
                let text = format!("{}  {DROPPED}", cell(&label.to_string()));
                self.line(&self.styles.look, "!", &text, "");
            }
            Event::Incident { label, text } => {
                let text = format!("{}  network: {}", cell(&label.to_string()), cell(text));
                self.line(&self.styles.look, "!", &text, "");
            }
            Event::Asked { url, done, total, .. } => {
                let message = format!("asked for {done} of {total}  {}", cell(url));
                match self.transfer {
                    None => self.begin_transfer(message),
                    Some(_) => self.move_transfer(message),
                }
                if done == total {
                    self.end_transfer();
                }
            }
            Event::Push { name } => self.begin_transfer(format!("push {}", cell(name))),
            Event::PushBytes { name, bytes, total } => {
                self.move_transfer(format!("push {}  {}", cell(name), of_total(bytes, total)));
            }
            Event::Pushed { name, bytes, seconds, .. } => {
                self.end_transfer();
                let text = format!("push {}  {}", cell(name), sent(bytes, seconds));
                self.line(&self.styles.good, "✔", &text, "");
            }
            Event::Wrote { path, seconds } => {
                let text = format!("output {}", cell(&path.display().to_string()));
                self.line(&self.styles.good, "✔", &text, &format!("{seconds:.1}s"));
            }
            Event::Summary(summary) => {
                let text = summary.text();
                let (whole, steps) = text.split_last().unzip();
                for line in steps.unwrap_or_default() {
                    let line = truncate_str(line, width().saturating_sub(1), "…");
                    self.print(&self.styles.faint.apply_to(line).to_string());
                }
                // The total is never cut; no temporary lines are shown now that a wrapped line could disturb.
                self.print(whole.map_or("", String::as_str));
            }
            Event::Repeating { subject, origin } => {
                let text = format!("repeating {subject} from {}", cell(origin));
                self.line(&self.styles.faint, "·", &text, "");
            }
            Event::Warning { message, .. } => {
                self.line(&self.styles.look, "!", &format!("warning: {}", cell(message)), "");
            }
        }
    }

    fn end(&mut self) {
        self.end_transfer();
        for label in self.running.keys().cloned().collect::<Vec<_>>() {
            self.finish(&label);
        }
        let _ = self.bars.clear();
    }
}

/// A terminal whose cursor rests at the beginning of the last line. `indicatif` leaves it at the end of a line that
/// fills the width, where the echo of Ctrl-C would start another line that is not counted.
#[derive(Debug)]
struct Terminal(Term);

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        TermLike::width(&self.0)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}

/// The width may change at any time.
fn width() -> usize {
    usize::from(Term::stderr().size().1).max(20)
}

/// The whole line must not wrap, since a wrapped line could not be cleared.
fn head_style() -> ProgressStyle {
    let elapsed = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.1}s", state.elapsed().as_secs_f64());
    };
    style("{spinner} {wide_msg} {took}").with_key("took", elapsed)
}

fn tail_style() -> ProgressStyle {
    style("    {wide_msg}")
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; the first test would find a mistake in one.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
