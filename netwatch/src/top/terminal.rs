//! The terminal: raw mode and the alternate screen as a guard, cells as they change, and keys.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::{Backend as _, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::crossterm::{cursor, execute, queue};
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::{flag, low_level};

use super::Key;

/// The screen is over, after a panic of some thread: nothing is drawn any more.
static OVER: AtomicBool = AtomicBool::new(false);

/// The terminal's modes are set.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal's modes. Dropping it restores them.
struct Modes;

impl Modes {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        // Restores what was set if the next step fails.
        let modes = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(modes)
    }

    fn leave() {
        // Once: leaving the other screen twice moves the cursor.
        if !TAKEN.swap(false, Ordering::SeqCst) {
            return;
        }
        // There is nobody to report an error to.
        let _ = execute!(io::stdout(), EndSynchronizedUpdate, cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        Self::leave();
    }
}

/// Restores the terminal, for a program that ends without its [`Screen`].
pub fn restore() {
    OVER.store(true, Ordering::SeqCst);
    Modes::leave();
}

/// What signals asked for.
#[derive(Debug)]
struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    goes_on: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let signals = Self { end: Arc::default(), stop: Arc::default(), goes_on: Arc::default() };
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            flag::register(signal, signals.end.clone())?;
        }
        flag::register(SIGTSTP, signals.stop.clone())?;
        flag::register(SIGCONT, signals.goes_on.clone())?;
        Ok(signals)
    }
}

/// What the terminal has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key.
    Key(Key),
    /// It has another size, or has to be drawn anew.
    Changed,
    /// A signal ends the program.
    End,
}

/// The screen. Dropping it restores the terminal; so does a panic.
pub struct Screen {
    backend: CrosstermBackend<BufWriter<Stdout>>,
    /// What the terminal shows.
    shown: Buffer,
    next: Buffer,
    signals: Signals,
    modes: Option<Modes>,
}

/// Bytes that are written to the terminal at once.
const CHUNK: usize = 64 << 10;

impl Screen {
    /// Takes the terminal. Everything that needs further system calls or files is done here, before rights are given up.
    ///
    /// # Errors
    /// If it is none, or it cannot be set.
    pub fn enter() -> io::Result<Self> {
        let signals = Signals::catch()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            OVER.store(true, Ordering::SeqCst);
            Modes::leave();
            before(panic);
        }));
        let modes = Modes::enter()?;
        // Makes the reader of events.
        event::poll(Duration::ZERO)?;
        Ok(Self {
            backend: CrosstermBackend::new(BufWriter::with_capacity(CHUNK, io::stdout())),
            shown: Buffer::default(),
            next: Buffer::default(),
            signals,
            modes: Some(modes),
        })
    }

    /// Width and height.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        size()
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&mut self, render: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        if OVER.load(Ordering::SeqCst) {
            return Err(io::Error::other("the screen is over"));
        }
        let (width, height) = size()?;
        let area = Rect::new(0, 0, width, height);
        queue!(self.backend, BeginSynchronizedUpdate)?;
        if self.shown.area != area {
            (self.shown, self.next) = (Buffer::empty(area), Buffer::empty(area));
            queue!(self.backend, Clear(ClearType::All))?;
        }
        render(area, &mut self.next);
        let changes = self.shown.diff(&self.next);
        // After a character that is not ASCII the cursor is placed again: a terminal may have another idea of its width,
        // and no column may move by that.
        for run in changes.chunk_by(|(_, _, cell), _| cell.symbol().is_ascii()) {
            self.backend.draw(run.iter().copied())?;
        }
        queue!(self.backend, EndSynchronizedUpdate)?;
        io::Write::flush(&mut self.backend)?;
        std::mem::swap(&mut self.shown, &mut self.next);
        if OVER.load(Ordering::SeqCst) {
            // A panic came in between, and what was written is after what the hook wrote.
            Modes::leave();
        }
        Ok(())
    }

    /// Draws every cell the next time.
    pub fn forget(&mut self) {
        self.shown = Buffer::default();
    }

    /// Waits for input.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn input(&mut self, patience: Duration) -> io::Result<Option<Input>> {
        // The signal interrupts the wait, or is seen after it.
        if let Some(input) = self.signalled()? {
            return Ok(Some(input));
        }
        // Asked here and not by crossterm, whose reader does not return any more if the terminal has hung up: it reads its
        // end again and again (crossterm 0.29, src/event/source/unix/mio.rs, try_read()).
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came = fds.iter().fold(PollFlags::empty(), |all, fd| all | fd.revents());
        if came.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(Some(Input::End));
        }
        // With an event that is not for a key it waits for the next.
        if !event::poll(Duration::ZERO)? {
            if size()? != (self.shown.area.width, self.shown.area.height) && !self.shown.area.is_empty() {
                self.forget();
                return Ok(Some(Input::Changed));
            }
            return self.signalled();
        }
        Ok(match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                named(key.code, key.modifiers).map(Input::Key)
            }
            Event::Resize(..) => {
                self.forget();
                Some(Input::Changed)
            }
            _ => None,
        })
    }

    fn signalled(&mut self) -> io::Result<Option<Input>> {
        if self.signals.end.load(Ordering::SeqCst) {
            return Ok(Some(Input::End));
        }
        if self.signals.stop.swap(false, Ordering::SeqCst) {
            self.suspend()?;
            return Ok(Some(Input::Changed));
        }
        if self.signals.goes_on.swap(false, Ordering::SeqCst) {
            // It was stopped without notice, and the shell has set the terminal meanwhile.
            self.again()?;
            return Ok(Some(Input::Changed));
        }
        Ok(None)
    }

    /// Restores the terminal, stops the process until SIGCONT, and takes the terminal again.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.modes = None;
        low_level::emulate_default_handler(SIGTSTP)?;
        self.signals.goes_on.store(false, Ordering::SeqCst);
        self.again()
    }

    fn again(&mut self) -> io::Result<()> {
        // Forgets the modes that are remembered as the ones before.
        self.modes = None;
        self.modes = Some(Modes::enter()?);
        self.forget();
        Ok(())
    }

    /// Copies text to the clipboard of the terminal, if that allows it (OSC 52).
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        write!(self.backend, "\x1b]52;c;{}\x07", base64(text.as_bytes()))?;
        io::Write::flush(&mut self.backend)
    }
}

fn named(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    Some(match code {
        KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => Key::Ctrl(c.to_ascii_lowercase()),
        KeyCode::Char(_) if modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        _ => return None,
    })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = ALPHABET.get((bits >> (18 - 6 * n) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if n > chunk.len() { '=' } else { digit.into() });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_its_specification() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    #[test]
    fn keys_have_names() {
        let none = KeyModifiers::NONE;
        assert_eq!(named(KeyCode::Char('C'), KeyModifiers::CONTROL), Some(Key::Ctrl('c')));
        assert_eq!(named(KeyCode::Char('S'), KeyModifiers::SHIFT), Some(Key::Char('S')));
        assert_eq!(named(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(named(KeyCode::BackTab, KeyModifiers::SHIFT), Some(Key::BackTab));
        assert_eq!(named(KeyCode::F(1), none), None);
    }
}
