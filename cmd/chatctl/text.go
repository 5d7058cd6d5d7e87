package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
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

// name is a name that somebody chose as one word, in quotes where it would not be
// one, or could be taken for something that chatctl says.
func name(chosen string) string {
	for i, r := range chosen {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._@+-|/", r) ||
			r == ':' && i > 0 && i < len(chosen)-1 {
			continue
		}
		return strconv.Quote(chosen)
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
		case !unicode.IsGraphic(r) || unicode.In(r, unicode.Zl, unicode.Zp):
			quoted := strconv.QuoteRune(r)
			text.WriteString(quoted[1 : len(quoted)-1])
		default:
			text.WriteRune(r)
		}
	}
	return text.String()
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
		if r < unicode.MaxASCII || unicode.IsGraphic(r) && !unicode.In(r, unicode.Zl, unicode.Zp) {
			line.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&line, `\u%04x`, unit)
		}
	}
	return line.String() + "\n"
}
