//! An event at level ERROR is a bug of ours: it is kept until the play looks, and fails it.

use std::cell::RefCell;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Listens to everything the engines log; prints it, if wanted. Only the first call counts.
pub(crate) fn listen(print: bool) {
    let level = if print {
        LevelFilter::DEBUG
    } else {
        LevelFilter::OFF
    };
    let printer = tracing_subscriber::fmt::layer()
        .without_time()
        .with_filter(level);
    // A second call finds a listener in place, which is as good.
    drop(registry().with(Errors).with(printer).try_init());
}

/// The errors logged on this thread since the last call.
pub(crate) fn take() -> Vec<String> {
    SEEN.with_borrow_mut(std::mem::take)
}

struct Errors;

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = Text(event.metadata().target().to_owned());
            event.record(&mut text);
            SEEN.with_borrow_mut(|seen| seen.push(text.0));
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        write!(self.0, " {}={value:?}", field.name()).unwrap_or_default();
    }
}
