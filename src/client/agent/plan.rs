//! When one line to a server is to be knocked on, renewed, and looked at. Pure: time, on the clock that counts through
//! suspend, and randomness are arguments.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::text::Span;

/// What is asked for where neither the user nor the bundle says how long.
const UNTOLD: Span = Span::from_secs(5 * 60);
/// The most that is asked for without the user's word: a machine that is lost keeps the port open for so long.
const USUAL: Span = Span::from_secs(10 * 60);
/// What a profile gives to a knock that cannot ask, unless it says something else.
const UNASKED: Span = Span::from_secs(15);
/// The least that is asked for after grants ended too soon.
const LEAST: Span = Span::from_secs(5);
/// How long after the end of the grant before a renewal is looked at.
const MARGIN: Duration = Duration::from_millis(500);
/// The longest pause between two knocks without effect.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest between a failure and the next knock, whatever happens.
const BREATH: Duration = Duration::from_secs(1);

/// So many knocks may begin within this time, whatever happens.
const BURST: usize = 5;
/// The time.
const BURST_TIME: Duration = Duration::from_secs(5);

/// How long grants last, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    asked: Span,
    unasked: Span,
    is_seen: bool,
}

impl Length {
    /// What to ask for: what the user wants, and never more than the bundle says is given.
    pub(super) fn new(wanted: Option<Span>, unasked: Option<Span>, most: Option<Span>) -> Self {
        let most_of = |asked: Span| most.map_or(asked, |most| asked.min(most));
        let usual = if most.is_some() { USUAL } else { UNTOLD };
        let unasked = most_of(unasked.unwrap_or(UNASKED));
        Self { asked: most_of(wanted.unwrap_or(usual)), unasked, is_seen: false }
    }

    /// What knocks ask for.
    pub(super) fn asked(&self) -> Span {
        self.asked
    }

    /// What a knock gets that cannot ask.
    pub(super) fn unasked(&self) -> Span {
        self.unasked
    }

    /// Whether a grant was seen to last until it was renewed.
    pub(super) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// A grant did last.
    pub(super) fn held(&mut self) {
        self.is_seen = true;
    }

    /// A grant had ended before it was to be renewed, although the server answers knocks: it gives less.
    pub(super) fn fell_short(&mut self) {
        let halved = |span: Span| Span::from_secs(span.as_secs() / 2).max(LEAST.min(span));
        (self.asked, self.unasked) = (halved(self.asked), halved(self.unasked));
    }
}

/// What to do next, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    state: State,
    failures: u32,
    /// When the last knocks were begun, the oldest first.
    begun: [Option<Duration>; BURST],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing leads to the server: nothing to do until the network changes.
    Away,
    /// Closed, as far as is known; a grant that was counted on may stand until this.
    Closed { knock: Duration, before: Option<Duration> },
    /// Open, as far as is known; a renewal is looked at when the grant before it would have ended.
    Open { until: Duration, renew: Duration, look: Option<Duration> },
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A knock that is watched.
    Knock,
    /// A new deadline for the grant.
    Renew,
    /// A look whether a renewal had an effect.
    Look,
}

impl Plan {
    /// A plan for a server that nothing leads to so far.
    pub(super) fn new() -> Self {
        Self { state: State::Away, failures: 0, begun: [None; BURST] }
    }

    /// The same where another address of the server was knocked at until now.
    pub(super) fn in_place_of(&self) -> Self {
        Self { begun: self.begun, ..Self::new() }
    }

    /// A knock is begun.
    pub(super) fn begin(&mut self, now: Duration) {
        self.begun.rotate_left(1);
        if let Some(last) = self.begun.last_mut() {
            *last = Some(now);
        }
    }

    /// When the next knock may begin. Networks and names that change all the time cost no more than a knock a second.
    fn soonest(&self, now: Duration) -> Duration {
        let [oldest, ..] = self.begun;
        oldest.map_or(now, |oldest| now.max(oldest + BURST_TIME))
    }

    /// What is due now.
    pub(super) fn due(&self, now: Duration) -> Option<Due> {
        match self.state {
            State::Closed { knock, .. } if knock <= now => Some(Due::Knock),
            State::Open { until, .. } if until <= now => Some(Due::Knock),
            State::Open { look: Some(look), .. } if look <= now => Some(Due::Look),
            State::Open { renew, .. } if renew <= now => Some(Due::Renew),
            _ => None,
        }
    }

    /// When something will be.
    pub(super) fn next(&self) -> Option<Duration> {
        match self.state {
            State::Away => None,
            State::Closed { knock, .. } => Some(knock),
            State::Open { until, renew, look } => Some(until.min(renew).min(look.unwrap_or(until))),
        }
    }

    /// Until when the grant lasts; `None` when there is none.
    pub(super) fn open_until(&self) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Away | State::Closed { .. } => None,
        }
    }

    /// How many knocks in a row had no effect.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The port was open after a knock of that time, whose grant lasts as long as this. Where a grant stood before,
    /// whether it was this knock that had an effect shows when that one would have ended.
    pub(super) fn opened(&mut self, knocked: Duration, lasts: Duration, roll: u8) {
        let look = match self.state {
            State::Open { until, look, .. } => Some(look.unwrap_or(until + MARGIN)),
            State::Closed { before, .. } => before.map(|before| before + MARGIN),
            State::Away => None,
        };
        let look = look.filter(|look| *look > knocked);
        self.failures = 0;
        self.state = State::Open { until: knocked + lasts, renew: knocked + renewal(lasts, roll), look };
    }

    /// The renewal had its effect.
    pub(super) fn seen(&mut self) {
        if let State::Open { look, .. } = &mut self.state {
            *look = None;
        }
    }

    /// The renewal could not be sent.
    pub(super) fn put_off(&mut self, now: Duration, roll: u8) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, roll);
        match &mut self.state {
            State::Open { renew, .. } => *renew = now + pause,
            State::Closed { knock, .. } => *knock = now + pause,
            State::Away => {}
        }
    }

    /// The knocks had no effect.
    pub(super) fn failed(&mut self, now: Duration, roll: u8) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Closed { knock: now + pause(self.failures, roll), before: None };
    }

    /// The grant is gone, or another address needs one: to be knocked for at once.
    pub(super) fn lost(&mut self, now: Duration) {
        self.state = State::Closed { knock: self.soonest(now), before: self.open_until() };
        self.failures = 0;
    }

    /// Nothing leads to the server any more.
    pub(super) fn gone(&mut self) {
        *self = self.in_place_of();
    }

    /// Something has happened that may help: what waits, waits no longer than a breath.
    pub(super) fn hurry(&mut self, now: Duration) {
        if let State::Closed { knock, .. } = &mut self.state {
            *knock = (*knock).min(now + BREATH);
        }
    }
}

/// How long after the knock a grant is renewed: between six tenths and two thirds of its time, so that clients that
/// began together do not knock together.
fn renewal(lasts: Duration, roll: u8) -> Duration {
    lasts * (600 + u32::from(roll) * 66 / 255) / 1000
}

/// The pause after so many failures: a second, twice as long each time, at most a minute; up to a quarter less by
/// chance.
fn pause(failures: u32, roll: u8) -> Duration {
    let doubled = BREATH * 2_u32.saturating_pow(failures.saturating_sub(1).min(6));
    doubled.min(PATIENCE) * (192 + u32::from(roll) / 4) / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn span(seconds: u32) -> Span {
        Span::from_secs(seconds)
    }

    fn open(at: u64, lasts: u64) -> Plan {
        let mut plan = Plan::new();
        plan.lost(s(at));
        plan.opened(s(at), s(lasts), 255);
        plan
    }

    #[test]
    fn a_grant_is_renewed_well_before_its_end_and_never_after_two_thirds() {
        for roll in [0, 1, 128, 255] {
            let at = renewal(s(600), roll);
            assert!(at >= s(360) && at <= s(400), "{at:?}");
        }
        let plan = open(1000, 600);
        assert_eq!((plan.due(s(1395)), plan.due(s(1400))), (None, Some(Due::Renew)));
        assert_eq!((plan.next(), plan.open_until()), (Some(s(1000) + renewal(s(600), 255)), Some(s(1600))));
    }

    #[test]
    fn a_renewal_is_looked_at_when_the_grant_before_it_would_have_ended() {
        let mut plan = open(0, 600);
        plan.opened(s(400), s(600), 255);
        assert_eq!(plan.open_until(), Some(s(1000)));
        assert_eq!((plan.due(s(600)), plan.due(s(601))), (None, Some(Due::Look)));
        plan.seen();
        assert_eq!((plan.due(s(601)), plan.due(s(800))), (None, Some(Due::Renew)));
    }

    #[test]
    fn a_look_that_is_due_is_not_put_off_by_further_renewals() {
        let mut plan = open(0, 1);
        plan.opened(Duration::from_millis(600), s(1), 0);
        plan.opened(Duration::from_millis(1200), s(1), 0);
        assert_eq!(plan.due(Duration::from_millis(1500)), Some(Due::Look));
    }

    #[test]
    fn a_knock_at_a_port_that_was_open_is_looked_at_when_the_grant_before_it_ends() {
        let mut plan = open(0, 600);
        plan.lost(s(300));
        plan.opened(s(300), s(600), 0);
        assert_eq!((plan.due(s(600)), plan.due(s(601))), (None, Some(Due::Look)));
        let mut closed = open(0, 600);
        closed.lost(s(300));
        closed.failed(s(302), 0);
        closed.opened(s(303), s(600), 0);
        assert_eq!(closed.due(s(650)), None, "it was seen to be closed");
    }

    #[test]
    fn a_grant_that_was_slept_through_is_knocked_for_anew() {
        assert_eq!(open(0, 600).due(s(700)), Some(Due::Knock));
    }

    #[test]
    fn what_was_lost_is_knocked_for_at_once() {
        let mut plan = open(0, 600);
        plan.lost(s(5));
        assert_eq!((plan.due(s(5)), plan.open_until()), (Some(Due::Knock), None));
    }

    #[test]
    fn a_network_that_flaps_gets_no_more_than_a_knock_a_second() {
        let (mut plan, mut knocks) = (Plan::new(), 0);
        for tenth in 0..600 {
            let now = Duration::from_millis(tenth * 100);
            // Another address, another route, or another answer of the resolver.
            if tenth % 2 == 0 {
                plan.lost(now);
            } else {
                plan = plan.in_place_of();
                plan.lost(now);
            }
            if plan.due(now) == Some(Due::Knock) {
                plan.begin(now);
                knocks += 1;
                assert!(knocks > BURST || now < s(1), "the first ones are not held up");
            }
        }
        assert_eq!(knocks, 60);
    }

    #[test]
    fn failures_are_a_second_apart_at_first_and_a_minute_at_the_most() {
        let pauses: Vec<u64> = (1..10).map(|failures| pause(failures, 255).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 3, 7, 15, 31, 59, 59, 59]);
        for failures in [1, 7, u32::MAX] {
            assert!(pause(failures, 0) >= Duration::from_millis(750) && pause(failures, 255) <= PATIENCE);
        }
        let mut plan = Plan::new();
        plan.lost(s(0));
        for _ in 0..20 {
            plan.failed(s(100), 255);
        }
        assert_eq!((plan.due(s(159)), plan.due(s(160)), plan.failures()), (None, Some(Due::Knock), 20));
    }

    #[test]
    fn good_news_shorten_the_pause_and_never_below_a_second() {
        let mut plan = Plan::new();
        plan.lost(s(0));
        (0..20).for_each(|_| plan.failed(s(100), 255));
        plan.hurry(s(110));
        plan.hurry(s(110) + Duration::from_millis(500));
        assert_eq!((plan.due(s(110)), plan.due(s(111))), (None, Some(Due::Knock)));
        let mut grant = open(0, 600);
        grant.hurry(s(1));
        assert_eq!(grant, open(0, 600), "a grant that stands is left alone");
    }

    #[test]
    fn a_renewal_that_cannot_be_sent_is_tried_again_before_the_end() {
        let mut plan = open(0, 600);
        plan.put_off(s(400), 255);
        assert_eq!(
            (plan.due(s(400)), plan.due(s(401)), plan.open_until()),
            (None, Some(Due::Renew), Some(s(600)))
        );
    }

    #[test]
    fn without_a_network_nothing_is_due_until_there_is_one() {
        let mut plan = open(0, 600);
        plan.gone();
        assert_eq!((plan.due(s(9999)), plan.next()), (None, None));
        plan.hurry(s(9999));
        assert_eq!(plan.next(), None);
        plan.lost(s(9999));
        assert_eq!(plan.due(s(9999)), Some(Due::Knock));
    }

    #[test]
    fn no_more_is_asked_for_than_the_bundle_says_and_ten_minutes_unless_told_otherwise() {
        let asked = |wanted: Option<u32>, most: Option<u32>| {
            Length::new(wanted.map(span), None, most.map(span)).asked().as_secs()
        };
        assert_eq!((asked(None, None), asked(None, Some(60)), asked(None, Some(86_400))), (300, 60, 600));
        assert_eq!((asked(Some(3600), Some(60)), asked(Some(3600), Some(7200))), (60, 3600));
        assert_eq!(asked(Some(3600), None), 3600);
        assert_eq!(Length::new(None, None, Some(span(10))).unasked(), span(10));
        assert_eq!(Length::new(None, Some(span(40)), None).unasked(), span(40));
    }

    #[test]
    fn grants_that_end_too_soon_halve_what_is_counted_on_down_to_five_seconds() {
        let mut length = Length::new(Some(span(100)), None, None);
        let mut seen = Vec::new();
        for _ in 0..5 {
            length.fell_short();
            seen.push(length.asked().as_secs());
        }
        assert_eq!((seen, length.unasked()), (vec![50, 25, 12, 6, 5], LEAST));
        let mut short = Length::new(Some(span(4)), None, None);
        short.fell_short();
        assert_eq!(short.asked(), span(4), "what the user wants is not made longer");
    }
}
