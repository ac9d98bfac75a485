//! What `hopline top` knows and shows: samples, events and keys in, rows and lines out.
//!
//! Invariants: the rows shown are in the order asked for, also between samples; the first of them exists, if any does; what
//! is asked of the model costs what is shown, not what there is, but for a sample or another order.
//!
//! It doesn't know the terminal, how wide it is, or where samples come from; the drawer says how many rows fit.

use crate::network_view::{Column, NetworkEvent, NetworkView, RelayView, changes};
use hopline_command::{Exit, Failure};
use hopline_proto::Time;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

/// How many events are remembered.
const MAX_EVENTS: usize = 100;
/// How long a filter may be.
const MAX_FILTER: usize = 64;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Input {
    /// The network was looked at.
    Sample(Box<NetworkView>),
    /// It could not be, for this reason.
    Unreachable(String),
    /// Whether the source tells events of its own accord from now on.
    Told(bool),
    /// It told one.
    Event(NetworkEvent),
    /// A key was pressed.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// Keys can't be read any more, for this reason.
    Deaf(String),
}

/// A key that may mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Backspace,
    Enter,
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// The model. See the module's documentation.
#[derive(Debug)]
pub(super) struct Model {
    view: NetworkView,
    summary: String,
    seen_at: Time,
    failure: Option<String>,
    deaf: Option<String>,
    events: VecDeque<String>,
    told: bool,
    paused: bool,
    help: bool,
    sort: Column,
    reversed: bool,
    filter: String,
    is_typing: bool,
    /// Places in the view's relays of those that pass the filter, in order.
    order: Vec<usize>,
    top: usize,
    page: usize,
}

impl Model {
    /// A model of a network that was seen now.
    pub(super) fn new(view: NetworkView, now: Time) -> Self {
        let mut model = Self {
            summary: summary(&view),
            view,
            seen_at: now,
            failure: None,
            deaf: None,
            events: VecDeque::new(),
            told: false,
            paused: false,
            help: false,
            sort: Column::Load,
            reversed: false,
            filter: String::new(),
            is_typing: false,
            order: Vec::new(),
            top: 0,
            page: 1,
        };
        model.arrange();
        model
    }

    /// Takes in what happened. A break is the end: see [`Model::end`].
    pub(super) fn handle(&mut self, input: Input, now: Time) -> ControlFlow<()> {
        match input {
            Input::Sample(view) => self.sample(*view, now),
            Input::Unreachable(why) => self.failure = Some(why),
            Input::Told(told) => self.told = told,
            Input::Event(event) => self.note(&event),
            Input::Resized => {}
            Input::Key(Key::Interrupt) => return ControlFlow::Break(()),
            Input::Key(key) if self.is_typing => self.edit(key),
            Input::Key(key) => return self.press(key),
            Input::Deaf(why) => {
                self.deaf = Some(why);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// How it ended.
    pub(super) fn end(&self) -> Result<(), Failure> {
        self.deaf.as_ref().map_or(Ok(()), |why| {
            Err(Failure::new(Exit::Failed, format!("can't read keys: {why}; start it in a terminal")))
        })
    }

    fn sample(&mut self, view: NetworkView, now: Time) {
        self.failure = None;
        if self.paused {
            return;
        }
        if !self.told {
            changes(&self.view, &view).iter().for_each(|event| self.note(event));
        }
        self.summary = summary(&view);
        self.view = view;
        self.seen_at = now;
        self.arrange();
    }

    fn note(&mut self, event: &NetworkEvent) {
        self.events.push_back(event.line());
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
    }

    fn press(&mut self, key: Key) -> ControlFlow<()> {
        let help = std::mem::take(&mut self.help);
        match key {
            Key::Char('q') => return ControlFlow::Break(()),
            Key::Char('s') => self.sort_by_next(),
            Key::Char('r') => self.turn(),
            Key::Char('/') => self.is_typing = true,
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('?') => self.help = !help,
            Key::Escape => self.set_filter(String::new()),
            Key::Up => self.scroll_to(self.top.saturating_sub(1)),
            Key::Down => self.scroll_to(self.top.saturating_add(1)),
            Key::PageUp => self.scroll_to(self.top.saturating_sub(self.page)),
            Key::PageDown => self.scroll_to(self.top.saturating_add(self.page)),
            Key::Home => self.scroll_to(0),
            Key::End => self.scroll_to(usize::MAX),
            Key::Char(_) | Key::Backspace | Key::Enter | Key::Interrupt => {}
        }
        ControlFlow::Continue(())
    }

    /// A key while the filter is being typed.
    fn edit(&mut self, key: Key) {
        let mut filter = self.filter.clone();
        match key {
            Key::Char(c) if filter.chars().count() < MAX_FILTER => filter.push(c),
            Key::Backspace => drop(filter.pop()),
            Key::Escape => {
                self.is_typing = false;
                filter.clear();
            }
            Key::Enter => self.is_typing = false,
            Key::Char(_)
            | Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Interrupt => {}
        }
        if filter != self.filter {
            self.set_filter(filter);
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.top = 0;
        self.arrange();
    }

    fn sort_by_next(&mut self) {
        let mut columns = Column::ALL.into_iter().cycle().skip_while(|column| *column != self.sort);
        self.sort = columns.nth(1).unwrap_or(self.sort);
        self.reversed = false;
        self.arrange();
    }

    fn turn(&mut self) {
        self.reversed = !self.reversed;
        self.arrange();
    }

    /// Picks and orders the relays; those that are equal go by name.
    fn arrange(&mut self) {
        let filter = self.filter.to_lowercase();
        let passes = |text: &str| text.to_lowercase().contains(&filter);
        let mut rows: Vec<(usize, &RelayView)> = self.view.relays.iter().enumerate().collect();
        if !filter.is_empty() {
            rows.retain(|(_, relay)| passes(&relay.name) || passes(&relay.zone));
        }
        rows.sort_by(|(_, a), (_, b)| {
            let order = self.sort.compare(a, b);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| (&a.name, &a.id).cmp(&(&b.name, &b.id)))
        });
        self.order = rows.into_iter().map(|(place, _)| place).collect();
        self.scroll_to(self.top);
    }

    fn scroll_to(&mut self, top: usize) {
        self.top = top.min(self.order.len().saturating_sub(self.page));
    }

    /// The relays to be shown where so many rows fit.
    pub(super) fn rows(&mut self, fit: usize) -> Vec<&RelayView> {
        self.page = fit.max(1);
        self.scroll_to(self.top);
        let shown = self.order.iter().skip(self.top).take(fit);
        shown.filter_map(|place| self.view.relays.get(*place)).collect()
    }

    /// The last so many events, the oldest first.
    pub(super) fn last_events(&self, count: usize) -> impl Iterator<Item = &str> {
        self.events.iter().skip(self.events.len().saturating_sub(count)).map(String::as_str)
    }

    /// The network.
    pub(super) const fn view(&self) -> &NetworkView {
        &self.view
    }

    /// All relays in a line.
    pub(super) fn summary(&self) -> &str {
        &self.summary
    }

    /// What whoever runs the network should know at once, a line each.
    pub(super) fn warnings(&self, now: Time) -> Vec<String> {
        let mut warnings = self.view.warnings();
        if let Some(why) = &self.failure {
            warnings.insert(0, format!("no answer, figures are {} s old: {why}", self.age(now).as_secs()));
        }
        warnings
    }

    /// How old the figures are.
    fn age(&self, now: Time) -> Duration {
        now.since(self.seen_at)
    }

    /// What is shown, and how.
    pub(super) fn state(&self, now: Time) -> String {
        let (first, last) = (self.top + 1, (self.top + self.page).min(self.order.len()));
        let mut parts = match self.order.len() {
            0 => vec!["no relays".to_owned()],
            count => vec![format!("{first}-{last} of {count}")],
        };
        if !self.filter.is_empty() {
            parts.push(format!("with {:?}", self.filter));
        }
        if !self.view.is_complete() {
            parts.push(format!("of {} registered", self.view.total_registered));
        }
        if self.paused {
            parts.push(format!("PAUSED, {} s old", self.age(now).as_secs()));
        }
        parts.join(", ")
    }

    /// What is sorted by, and whether the other way round.
    pub(super) const fn sorted_by(&self) -> (Column, bool) {
        (self.sort, self.reversed)
    }

    /// The filter as far as it is typed, while it is.
    pub(super) fn typed(&self) -> Option<&str> {
        self.is_typing.then_some(self.filter.as_str())
    }

    /// Whether the keys are to be explained.
    pub(super) const fn shows_help(&self) -> bool {
        self.help
    }
}

/// All relays in a line; a flow counts at each of its relays.
fn summary(view: &NetworkView) -> String {
    let (mut flows, mut rate) = (0u64, 0.0);
    for relay in &view.relays {
        flows = flows.saturating_add(relay.flows);
        rate += relay.bytes_per_second as f64 / 1e6;
    }
    format!("{}; {flows} flows at relays, {rate:.1} MB/s", view.pool())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::network_view::tests::{network, relay};

    pub(in crate::top) const START: Time = Time::ZERO;

    fn at(s: u64) -> Time {
        START + Duration::from_secs(s)
    }

    /// As many relays, each with more flows than the one before, by turns in two zones.
    pub(in crate::top) fn crowd(count: u64) -> NetworkView {
        let relays = (0..count).map(|n| RelayView {
            zone: if n % 2 == 0 { "eu-west" } else { "us-east" }.to_owned(),
            ..relay(&format!("r{n}"), "online", n)
        });
        network(relays.collect())
    }

    fn press(model: &mut Model, keys: &[Key]) {
        for key in keys {
            assert!(model.handle(Input::Key(*key), START).is_continue(), "{key:?}");
        }
    }

    pub(in crate::top) fn type_in(model: &mut Model, text: &str) {
        press(model, &text.chars().map(Key::Char).collect::<Vec<_>>());
    }

    fn names(model: &mut Model, fit: usize) -> Vec<String> {
        model.rows(fit).iter().map(|relay| relay.name.clone()).collect()
    }

    #[test]
    fn the_busiest_come_first_and_keys_change_that() {
        let mut model = Model::new(crowd(12), START);
        assert_eq!(names(&mut model, 3), ["r11", "r10", "r9"]);
        press(&mut model, &[Key::Char('r')]);
        assert_eq!(
            (names(&mut model, 2), model.sorted_by()),
            (vec!["r0".into(), "r1".into()], (Column::Load, true))
        );
        for _ in Column::ALL {
            press(&mut model, &[Key::Char('s')]);
            assert!(!model.sorted_by().1 && model.rows(12).len() == 12, "{:?}", model.sorted_by());
        }
        assert_eq!(model.sorted_by().0, Column::Load, "once round");
        while model.sorted_by().0 != Column::Name {
            press(&mut model, &[Key::Char('s')]);
        }
        assert_eq!(names(&mut model, 3), ["r0", "r1", "r10"]);
    }

    #[test]
    fn the_screen_stays_within_the_rows() {
        let mut model = Model::new(crowd(10), START);
        assert_eq!(model.rows(4).len(), 4);
        press(&mut model, &[Key::End, Key::Down, Key::PageDown]);
        assert_eq!(names(&mut model, 4), ["r3", "r2", "r1", "r0"]);
        press(&mut model, &[Key::Up]);
        assert_eq!(
            (names(&mut model, 4).swap_remove(0), model.state(START)),
            ("r4".into(), "6-9 of 10".into())
        );
        press(&mut model, &[Key::PageUp, Key::PageUp, Key::Up]);
        assert_eq!(names(&mut model, 4).swap_remove(0), "r9");
        press(&mut model, &[Key::End, Key::Home, Key::End]);
        assert_eq!(model.rows(100).len(), 10, "a taller screen shows all");
        let _ = model.handle(Input::Sample(Box::new(crowd(2))), START);
        assert_eq!(names(&mut model, 4), ["r1", "r0"], "fewer are left than it was scrolled by");
        let _ = model.handle(Input::Sample(Box::new(crowd(0))), START);
        assert_eq!((model.rows(4).len(), model.state(START)), (0, "no relays".into()));
        press(&mut model, &[Key::Down, Key::PageDown, Key::Up, Key::End]);
        assert_eq!(model.rows(0).len(), 0);
    }

    #[test]
    fn a_filter_is_typed_by_name_or_zone() {
        let mut model = Model::new(crowd(12), START);
        press(&mut model, &[Key::End]);
        type_in(&mut model, "/US-q");
        assert_eq!((model.rows(9).len(), model.typed()), (0, Some("US-q")), "q is a letter there");
        press(&mut model, &[Key::Backspace, Key::Enter]);
        assert_eq!((names(&mut model, 2), model.typed()), (vec!["r11".into(), "r9".into()], None));
        assert_eq!(model.state(START), "1-2 of 6, with \"US-\"");
        press(&mut model, &[Key::Escape]);
        type_in(&mut model, "/r1");
        assert_eq!(names(&mut model, 9), ["r11", "r10", "r1"]);
        type_in(&mut model, &"x".repeat(1000));
        assert_eq!(model.typed().unwrap().len(), MAX_FILTER);
        press(&mut model, &[Key::Escape]);
        assert_eq!((model.rows(99).len(), model.typed()), (12, None));
    }

    #[test]
    fn a_pause_keeps_the_figures() {
        let mut model = Model::new(crowd(3), START);
        press(&mut model, &[Key::Char('p')]);
        let _ = model.handle(Input::Sample(Box::new(crowd(5))), at(7));
        assert_eq!((model.rows(9).len(), model.state(at(9))), (3, "1-3 of 3, PAUSED, 9 s old".into()));
        press(&mut model, &[Key::Char('p')]);
        let _ = model.handle(Input::Sample(Box::new(crowd(5))), at(10));
        assert_eq!((model.rows(9).len(), model.state(at(10))), (5, "1-5 of 5".into()));
    }

    #[test]
    fn an_outage_is_told_until_it_is_over() {
        let mut model = Model::new(crowd(3), START);
        assert_eq!(model.warnings(at(1)), Vec::<String>::new());
        let _ = model.handle(Input::Unreachable("refused".to_owned()), at(2));
        assert_eq!(model.warnings(at(12)), ["no answer, figures are 12 s old: refused"]);
        assert_eq!(model.rows(9).len(), 3, "what was known is still shown");
        let _ = model.handle(Input::Sample(Box::new(crowd(3))), at(13));
        assert_eq!(model.warnings(at(13)), Vec::<String>::new());
    }

    #[test]
    fn events_are_the_sources_own_or_what_changed() {
        let events = |model: &Model| model.last_events(5).map(str::to_owned).collect::<Vec<_>>();
        let changed = || network(vec![relay("r0", "suspect", 1)]);
        let mut model = Model::new(network(vec![relay("r0", "online", 1)]), START);
        let _ = model.handle(Input::Sample(Box::new(changed())), START);
        assert_eq!(events(&model), ["08:00:00 r0 suspect"]);
        let _ = model.handle(Input::Told(true), START);
        let _ = model.handle(Input::Sample(Box::new(crowd(1))), START);
        assert_eq!(events(&model).len(), 1, "the source will tell");
        for _ in 0..2 * MAX_EVENTS {
            let _ = model.handle(Input::Event(NetworkEvent::default()), START);
        }
        assert_eq!((events(&model).len(), model.events.len()), (5, MAX_EVENTS));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let mut model = Model::new(crowd(1), START);
        press(&mut model, &[Key::Char('?')]);
        assert!(model.shows_help());
        press(&mut model, &[Key::Char('x')]);
        assert!(!model.shows_help());
        assert!(model.handle(Input::Key(Key::Char('q')), START).is_break() && model.end().is_ok());
        type_in(&mut model, "/q");
        assert!(model.handle(Input::Key(Key::Interrupt), START).is_break() && model.end().is_ok());
        assert!(model.handle(Input::Deaf("gone".to_owned()), START).is_break() && model.end().is_err());
    }
}
