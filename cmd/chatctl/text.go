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

// timeLayout is the format of times, which are local.
const timeLayout = "2006-01-02 15:04:05"

// messageLine returns a message for people, always as one line:
//
//	2026-11-25 04:31:58 ana: to everyone
//	2026-11-25 04:31:58 #ops ana: to a channel
//	2026-11-25 04:31:58 @bob ana: to bob alone
//
// The content cannot imitate another line or control the terminal: see [harmless] and
// [name].
func messageLine(at time.Time, channel, sender, content string) string {
	from := "(the service)"
	if sender != "" {
		from = name(sender)
	}
	return fmt.Sprintf("%s %s%s: %s\n", at.Local().Format(timeLayout), where(channel), from, harmless(content))
}

// where returns a channel and a space, "" for everyone's channel.
func where(channel string) string {
	if channel == "" {
		return ""
	}
	if owner, own := strings.CutPrefix(channel, "@"); own {
		return "@" + name(owner) + " "
	}
	return "#" + name(channel) + " "
}

// unseen are invisible characters that package unicode counts as graphic: fillers, the blank
// of braille, and all variation selectors except the two of emoji.
var unseen = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x034F, 0x034F, 1}, {0x115F, 0x1160, 1}, {0x17B4, 0x17B5, 1}, {0x180B, 0x180F, 1},
		{0x2800, 0x2800, 1}, {0x3164, 0x3164, 1}, {0xFE00, 0xFE0D, 1}, {0xFFA0, 0xFFA0, 1},
	},
	R32: []unicode.Range32{{0xE0100, 0xE01EF, 1}},
}

// name returns a name as one word. It is in quotes if it is not one plain word, or could be
// mistaken for a text of chatctl.
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

// harmless spells out all characters that could control a terminal or mislead its reader:
// line ends, escape sequences, changes of the writing direction, invisible characters. The
// joiners of emoji and of some scripts stay.
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

// indent begins each row of a folded line except the first. No line of chatctl begins with
// it.
const indent = "    "

// fold breaks lines that are longer than a row of the terminal. The further rows begin with
// blanks, so that no part of a message is at the beginning of a row. columns is 0 if there
// is no terminal.
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
			wide = 2 // at most; a narrower character leaves room
		}
		if at+wide >= columns { // a terminal may wrap a full row by itself
			folded.WriteString("\n" + indent)
			at = len(indent)
		}
		folded.WriteRune(r)
		at += wide
	}
	return folded.String()
}

// screen is a file for people, perhaps a terminal.
type screen struct{ file *os.File }

func (s screen) Write(b []byte) (int, error) {
	if _, err := io.WriteString(s.file, fold(string(b), terminal.Width(s.file))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// presenceLine returns a line about a join or a leave, which looks unlike any message:
//
//	2026-11-25 04:31:58 * ana joined
//	2026-11-25 04:31:58 #ops * ana left
func presenceLine(at time.Time, channel, user, verb string) string {
	return fmt.Sprintf("%s %s* %s %s\n", at.Local().Format(timeLayout), where(channel), name(user), verb)
}

// jsonLine returns JSON as one line that no terminal obeys: it escapes all characters that
// [harmless] spells out.
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
