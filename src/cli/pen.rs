//! Colour for a terminal, and none elsewhere. Pure.

#[derive(Clone, Copy)]
pub enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
}

/// Whether it paints.
pub struct Pen(pub bool);

impl Pen {
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.0 || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "1;31",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
