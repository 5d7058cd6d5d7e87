package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/reto10/chat/internal/terminal"
)

// timeLayout is how people read times, in their own zone.
const timeLayout = "2006-01-02 15:04:05"

// messageLine is a message for people, in one line whatever it contains:
//
//	2026-11-25 04:31:58 ana: to everyone
//	2026-11-25 04:31:58 #ops ana: to a channel
//	2026-11-25 04:31:58 @bob ana: to bob alone
//
// What could look like anything else than the content of this one message does
// not come through: see [harmless] and [name].
func messageLine(at time.Time, channel, sender, content string) string {
	from := "(the service)"
	if sender != "" {
		from = name(sender)
	}
	return fmt.Sprintf("%s %s%s: %s\n", at.Local().Format(timeLayout), where(channel), from, harmless(content))
}

// where is a channel with a space behind it, "" for everyone's.
func where(channel string) string {
	if channel == "" {
		return ""
	}
	if owner, own := strings.CutPrefix(channel, "@"); own {
		return "@" + name(owner) + " "
	}
	return "#" + name(channel) + " "
}

// unseen are characters that count as graphic and that nobody sees, beside those of
// [harmless]: fillers, a blank of braille, selectors of variants but the two that emoji
// are written with.
var unseen = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x034F, 0x034F, 1}, {0x115F, 0x1160, 1}, {0x17B4, 0x17B5, 1}, {0x180B, 0x180F, 1},
		{0x2800, 0x2800, 1}, {0x3164, 0x3164, 1}, {0xFE00, 0xFE0D, 1}, {0xFFA0, 0xFFA0, 1},
	},
	R32: []unicode.Range32{{0xE0100, 0xE01EF, 1}},
}

// name is a name that somebody chose as one word, in quotes where it would not be
// one, or could be taken for something that chatctl says.
func name(chosen string) string {
	for i, r := range chosen {
		if unicode.IsLetter(r) && !unicode.Is(unseen, r) || unicode.IsDigit(r) || strings.ContainsRune("._@+-|/", r) ||
			r == ':' && i > 0 && i < len(chosen)-1 {
			continue
		}
		return harmless(strconv.Quote(chosen))
	}
	if chosen == "" {
		return `""`
	}
	return chosen
}

// harmless is what somebody wrote with everything spelled out that would do
// something to a terminal or to its reader: ends of lines, escape sequences, what
// turns the direction of writing around, what cannot be seen. The joiners that
// emoji and some scripts are written with stay.
func harmless(content string) string {
	const zeroWidthNonJoiner, zeroWidthJoiner = '\u200c', '\u200d'
	var text strings.Builder
	for _, r := range content {
		switch {
		case r == zeroWidthJoiner || r == zeroWidthNonJoiner:
			text.WriteRune(r)
		case !unicode.IsGraphic(r) || unicode.In(r, unicode.Zl, unicode.Zp, unseen):
			quoted := strconv.QuoteRuneToASCII(r)
			text.WriteString(quoted[1 : len(quoted)-1])
		default:
			text.WriteRune(r)
		}
	}
	return text.String()
}

// indent begins each row but the first of what takes several. No line that chatctl
// prints begins so.
const indent = "    "

// fold has lines that are longer than a row of the terminal go on in rows of their own,
// which begin with blanks: what a message holds never stands where a line begins.
// columns is 0 where there is no terminal.
func fold(text string, columns int) string {
	if columns <= len(indent)+2 {
		return text
	}
	var folded strings.Builder
	at := 0
	for _, r := range text {
		wide := 1
		if r == '\n' {
			at, wide = 0, 0
		} else if r >= utf8.RuneSelf {
			wide = 2 // at the most; what is narrower leaves room
		}
		if at+wide >= columns { // a terminal may go on by itself behind a full row
			folded.WriteString("\n" + indent)
			at = len(indent)
		}
		folded.WriteRune(r)
		at += wide
	}
	return folded.String()
}

// screen is a file that may be a terminal, for what people read.
type screen struct{ file *os.File }

func (s screen) Write(b []byte) (int, error) {
	if _, err := io.WriteString(s.file, fold(string(b), terminal.Width(s.file))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// presenceLine says that somebody came or went, unlike any message:
//
//	2026-11-25 04:31:58 * ana joined
//	2026-11-25 04:31:58 #ops * ana left
func presenceLine(at time.Time, channel, user, verb string) string {
	return fmt.Sprintf("%s %s* %s %s\n", at.Local().Format(timeLayout), where(channel), name(user), verb)
}

// jsonLine is JSON as a line that does nothing to a terminal: what is valid in JSON
// as it is, and no [harmless] text, is escaped.
func jsonLine(object []byte) string {
	var line strings.Builder
	for _, r := range string(object) {
		if r < unicode.MaxASCII || unicode.IsGraphic(r) && !unicode.In(r, unicode.Zl, unicode.Zp, unseen) {
			line.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&line, `\u%04x`, unit)
		}
	}
	return line.String() + "\n"
}
