//! Draws the [model](super::model): what fits, the most important first. It knows no terminal, only a frame.

use super::model::Model;
use crate::network_view::{Column, RelayView};
use hopline_proto::Time;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};

/// How many events are shown, where there is room.
const EVENTS: u16 = 5;
/// From which height on there is.
const ROOM_FOR_EVENTS: u16 = 18;
/// Between two columns.
const GAP: u16 = 1;

/// What the keys do.
const HELP: [&str; 9] = [
    "s         the next column to sort by",
    "r         the other way round",
    "/         filter by name or zone",
    "Esc       no filter",
    "up, down  scroll by one",
    "PgUp/Dn   scroll by a page; Home, End",
    "p         pause: keep these figures",
    "?         this help",
    "q         quit, as Ctrl-C",
];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, now: Time) {
    let area = frame.area();
    let head = head(model, now);
    let events = if area.height < ROOM_FOR_EVENTS { 0 } else { EVENTS + 1 };
    let parts = [
        Constraint::Length(lines_of(&head, area).min(area.height.saturating_sub(3))),
        Constraint::Fill(1),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [top, middle, bottom, last] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(head).wrap(Wrap { trim: true }), top);
    draw_relays(frame, model, middle);
    draw_events(frame, model, bottom);
    frame.render_widget(foot(model, now), last);
    if model.shows_help() {
        draw_help(frame, area);
    }
}

/// The network in two lines, and what must be known of it.
fn head(model: &Model, now: Time) -> Vec<Line<'static>> {
    let view = model.view();
    let network: String = view.network.chars().take(12).collect();
    let up = view.bootstrap.uptime_seconds;
    let mut lines = vec![
        Line::from(format!("hopline {network}, bootstrap up {up:.0} s")).bold(),
        Line::from(model.summary().to_owned()),
    ];
    lines.extend(model.warnings(now).into_iter().map(|warning| Line::from(warning).red().bold()));
    lines
}

/// How many lines of the screen these take, about.
fn lines_of(lines: &[Line<'_>], area: Rect) -> u16 {
    let width = usize::from(area.width.max(1));
    let count = lines.iter().map(|line| line.width() / width + 1).sum::<usize>();
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn draw_relays(frame: &mut Frame<'_>, model: &mut Model, area: Rect) {
    let columns = columns(area.width);
    let sorted_by = model.sorted_by();
    let headings = columns.iter().map(|column| heading(*column, sorted_by));
    let fit = usize::from(area.height.saturating_sub(1));
    let rows = model.rows(fit).into_iter().map(|relay| row(relay, &columns));
    let widths = columns.iter().map(|column| Constraint::Length(column.width()));
    let table = Table::new(rows, widths).header(Row::new(headings).reversed()).column_spacing(GAP);
    frame.render_widget(table, area);
}

/// Those that fit into this width, one at least.
fn columns(width: u16) -> Vec<Column> {
    let mut used = 0;
    let mut fits = |column: &Column| {
        let is_first = used == 0;
        used += column.width() + GAP;
        is_first || used <= width.saturating_add(GAP)
    };
    Column::ALL.into_iter().take_while(|column| fits(column)).collect()
}

fn heading(column: Column, (sorted_by, reversed): (Column, bool)) -> Cell<'static> {
    let arrow = match (column == sorted_by, column.is_text() == reversed) {
        (false, _) => "",
        (true, true) => "▼",
        (true, false) => "▲",
    };
    cell(column, format!("{}{arrow}", column.heading()))
}

fn cell(column: Column, text: String) -> Cell<'static> {
    let text = Text::from(text);
    Cell::from(if column.is_text() { text } else { text.right_aligned() })
}

fn row(relay: &RelayView, columns: &[Column]) -> Row<'static> {
    Row::new(columns.iter().map(|column| cell(*column, column.cell(relay)))).style(style(&relay.status))
}

fn style(status: &str) -> Style {
    match status {
        "online" => Style::new(),
        "registered" => Style::new().fg(Color::Green),
        "suspect" => Style::new().fg(Color::Yellow),
        "draining" => Style::new().fg(Color::Cyan),
        "offline" => Style::new().fg(Color::Red),
        _ => Style::new().add_modifier(Modifier::DIM),
    }
}

fn draw_events(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let lines: Vec<Line<'_>> = model.last_events(usize::from(EVENTS)).map(Line::from).collect();
    let block = Block::new().borders(ratatui::widgets::Borders::TOP).title(" events (UTC) ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn foot(model: &Model, now: Time) -> Line<'static> {
    match model.typed() {
        Some(filter) => Line::from(format!("name or zone: {filter}_  (Enter keeps it, Esc drops it)")).bold(),
        None => Line::from(format!("{}  (? help, q quit)", model.state(now))).dim(),
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.map(Line::from).to_vec();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 2;
    let size = [width, HELP.len() + 2].map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    let [width, height] = size;
    let place = area.centered(Constraint::Length(width), Constraint::Length(height)).intersection(area);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), place);
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{START, crowd, type_in};
    use super::super::model::{Input, Model};
    use super::*;
    use crate::network_view::NetworkView;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The lines of a screen of this size.
    fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, START)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells.chunks(width.into());
        lines
            .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    fn preserving(mut view: NetworkView) -> NetworkView {
        view.bootstrap.preserving_seconds = Some(5.0);
        view
    }

    #[test]
    fn a_common_screen() {
        let mut model = Model::new(crowd(3), START);
        let expected = [
            "hopline net1, bootstrap up 60 s",
            "3 online; 3 flows at relays, 0.0 MB/s",
            "NAME             STATUS     ZONE            FLOWS/CAP LOAD %▼   CPU %   MEM %",
            "r2               online     eu-west             2/100       2       -       -",
            "r1               online     us-east             1/100       1       -       -",
            "r0               online     eu-west             0/100       0       -       -",
            "",
            "1-3 of 3  (? help, q quit)",
        ];
        assert_eq!(screen(&mut model, 80, 8), expected);
    }

    #[test]
    fn a_small_screen_shows_the_busiest() {
        let mut model = Model::new(preserving(crowd(10_000)), START);
        let lines = screen(&mut model, 20, 5);
        assert_eq!(lines[2..], ["NAME", "r9999", "1-1 of 10000  (? hel"], "{lines:?}");
        for (width, height) in [(1, 1), (2, 2), (20, 1), (1, 50), (0, 0)] {
            assert_eq!(screen_of_any_size(&mut model, width, height), usize::from(height));
        }
    }

    /// How many lines are drawn, even if there are none.
    fn screen_of_any_size(model: &mut Model, width: u16, height: u16) -> usize {
        if width == 0 { 0 } else { screen(model, width, height).len() }
    }

    #[test]
    fn a_large_screen_shows_everything() {
        let mut model = Model::new(preserving(crowd(10_000)), START);
        let _ = model.handle(Input::Sample(Box::new(crowd(10_000))), START);
        let lines = screen(&mut model, 200, 50);
        assert!(
            lines[2].contains("VERSION") && lines[3].starts_with("r9999") && lines[42].starts_with("r9960")
        );
        assert_eq!(lines[43].trim_end_matches('─'), " events (UTC) ");
        assert_eq!(lines[44], "08:00:00 the bootstrap resumed");
        assert_eq!(lines[49], "1-40 of 10000  (? help, q quit)");
    }

    #[test]
    fn an_empty_network_and_its_troubles() {
        let mut model = Model::new(preserving(crowd(0)), START);
        let why =
            "no admin server at http://127.0.0.1:1: Connection refused (os error 111); check the address"
                .to_owned();
        let _ = model.handle(Input::Unreachable(why), START);
        let lines = screen(&mut model, 80, 24);
        assert_eq!(lines[1], "no relays; 0 flows at relays, 0.0 MB/s");
        assert!(lines[2].starts_with("no answer, figures are 0 s old: no admin server"), "{lines:?}");
        assert!(lines.join(" ").contains("check the address"), "long lines are wrapped: {lines:?}");
        assert!(lines.join(" ").contains("self-preservation for 5 s"), "{lines:?}");
        assert_eq!(lines[23], "no relays  (? help, q quit)");
    }

    #[test]
    fn help_and_a_filter_that_is_typed() {
        let mut model = Model::new(crowd(3), START);
        type_in(&mut model, "?");
        let help = screen(&mut model, 80, 24).join("\n");
        assert!(HELP.iter().all(|line| help.contains(line)), "{help}");
        assert_eq!(screen(&mut model, 10, 4).len(), 4, "help on a screen that is too small for it");
        type_in(&mut model, "/eu");
        let lines = screen(&mut model, 80, 24);
        assert!(lines[23].starts_with("name or zone: eu_"), "{}", lines[23]);
        assert!(
            lines[3].starts_with("r2 ") && lines[4].starts_with("r0 ") && lines[5].is_empty(),
            "{lines:?}"
        );
    }
}
