//! `--hide`: entries that tests hide from a view, to check that the audit detects it. Without the feature
//! `test-equipment` the type has no values.

use crate::audit::views::View;
use crate::model::SocketRow;

/// An entry that is hidden from a view.
#[cfg(not(any(test, feature = "test-equipment")))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {}

#[cfg(not(any(test, feature = "test-equipment")))]
impl Hidden {
    pub(super) fn is_once(self) -> bool {
        match self {}
    }

    pub(super) fn hides_socket(self, _: View, _: &SocketRow) -> bool {
        match self {}
    }

    pub(super) fn hides_process(self, _: u32) -> bool {
        match self {}
    }
}

/// An entry that is hidden from a view.
#[cfg(any(test, feature = "test-equipment"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    view: View,
    what: HiddenWhat,
    /// Only in the first comparison.
    once: bool,
}

#[cfg(any(test, feature = "test-equipment"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HiddenWhat {
    Port(u16),
    Pid(u32),
}

#[cfg(any(test, feature = "test-equipment"))]
impl Hidden {
    /// Parses `VIEW=PORT`, where VIEW is net, diag or iter, or `proc=PID`; the prefix `once:` hides it only in the
    /// first comparison.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "[once:]net=PORT, diag=PORT, iter=PORT or proc=PID";
        let (once, text) = text.strip_prefix("once:").map_or((false, text), |text| (true, text));
        let (view, value) = text.split_once('=').ok_or(FORM)?;
        let port = || value.parse().map(HiddenWhat::Port).map_err(|_| FORM);
        let (view, what) = match view {
            "net" => (View::NetFiles, port()?),
            "diag" => (View::SockDiag, port()?),
            "iter" => (View::Iterators, port()?),
            "proc" => (View::Processes, HiddenWhat::Pid(value.parse().map_err(|_| FORM)?)),
            _ => return Err(FORM),
        };
        Ok(Self { view, what, once })
    }

    /// Only in the first comparison.
    pub(super) fn is_once(self) -> bool {
        self.once
    }

    pub(super) fn hides_socket(self, of: View, row: &SocketRow) -> bool {
        self.view == of && self.what == HiddenWhat::Port(row.local.port)
    }

    pub(super) fn hides_process(self, pid: u32) -> bool {
        self.what == HiddenWhat::Pid(pid)
    }
}
