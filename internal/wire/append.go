package wire

import "strconv"

// Append appends what encoding/json makes of p, in a fraction of the time: each user who
// joins or leaves causes several of these.
func (p *Presence) Append(b []byte) []byte {
	b = append(appendMember(append(b, '{'), "type", p.Type), ',')
	b = append(appendMember(b, "username", p.Username), ',')
	b = append(appendMember(b, "role", p.Role), ',')
	if p.Channel != "" {
		b = append(appendMember(b, "channel", p.Channel), ',')
	}
	return append(appendMember(b, "time", p.Time), '}')
}

// Append appends what encoding/json makes of w. Each socket begins with one.
func (w *Welcome) Append(b []byte) []byte {
	b = append(appendMember(append(b, '{'), "type", w.Type), ',')
	b = append(appendMember(b, "session", w.Session), ',')
	b = append(appendMember(b, "user", w.User), ',')
	b = append(appendMember(b, "role", w.Role), ',')
	b = strconv.AppendInt(append(b, `"expires_in":`...), w.ExpiresIn, 10)
	b = append(b, `,"since":`...)
	if w.Since == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i, id := range w.Since {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, id)
		}
		b = append(b, ']')
	}
	if w.Recovered != nil {
		b = strconv.AppendBool(append(b, `,"recovered":`...), *w.Recovered)
	}
	return append(b, '}')
}
