//! What is a specification, and what is filled in.

use std::time::Duration;

use halm_actors::supervisor::{
    Action, AutoShutdown, CHILDREN_MAX, Intensity, Policy, Restart, Settings, SpecError, Strategy,
};

use crate::bench::{Bench, SECOND, named, policy, settings};

#[test]
fn what_otp_refuses_is_refused() {
    let check = |settings: Settings, policies: &[Policy]| settings.check(policies);
    let any = Settings { auto_shutdown: AutoShutdown::AnySignificant, ..settings(Strategy::OneForOne) };
    let significant = Policy { significant: true, ..policy("a") };
    let transient = Policy { restart: Restart::Transient, ..significant.clone() };
    let no_period = Settings { intensity: Intensity { restarts_max: 1, period: Duration::ZERO }, ..any };
    assert_eq!(check(any, &[policy("a"), policy("a")]), Err(SpecError::DuplicateId(named("a"))));
    assert_eq!(check(any, &[significant]), Err(SpecError::SignificantPermanent(named("a"))));
    let quiet = settings(Strategy::OneForOne);
    assert_eq!(
        check(quiet, std::slice::from_ref(&transient)),
        Err(SpecError::SignificantWithoutAutoShutdown(named("a")))
    );
    assert_eq!(check(no_period, &[]), Err(SpecError::ZeroPeriod));
    assert_eq!(check(settings(Strategy::Dynamic), &[]), Err(SpecError::Template(0)));
    assert_eq!(check(any, &[transient]), Ok(()));
    assert_eq!(Action::Restart { after: SECOND }.name(), "restart");
}

#[test]
fn a_supervisors_defaults_are_otps_but_for_the_intensity() {
    let settings = Settings::default();
    assert_eq!(settings.strategy, Strategy::OneForOne);
    assert_eq!(settings.intensity, Intensity { restarts_max: 3, period: SECOND * 5 });
    assert_eq!(settings.auto_shutdown, AutoShutdown::Never);
}

#[test]
fn a_supervisor_has_a_limit_of_children() {
    let children: Vec<Policy> = (0..=CHILDREN_MAX).map(|number| policy(&number.to_string())).collect();
    let settings = settings(Strategy::OneForOne);
    assert_eq!(settings.check(&children[1..]), Ok(()));
    assert_eq!(settings.check(&children), Err(SpecError::TooManyChildren(CHILDREN_MAX + 1)));
    let mut bench = Bench::booted(settings, &children[1..]);
    bench.add(1, policy("one_more"));
    assert_eq!(bench.diary(), [format!("reply 1 {}", SpecError::TooManyChildren(CHILDREN_MAX + 1))]);
}
