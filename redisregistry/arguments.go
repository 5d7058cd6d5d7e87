package redisregistry

import "strconv"

// arguments is the arguments of a command, in one buffer: a batch has hundreds.
type arguments struct {
	text []byte
	ends []int // the end of each argument in text
}

// end ends an argument that was appended to text.
func (a *arguments) end() { a.ends = append(a.ends, len(a.text)) }

func (a *arguments) add(s string) {
	a.text = append(a.text, s...)
	a.end()
}

func (a *arguments) int(n int) { a.int64(int64(n)) }

func (a *arguments) int64(n int64) {
	a.text = strconv.AppendInt(a.text, n, 10)
	a.end()
}

// command returns a command with these arguments, behind two others. A pointer to a string
// needs no allocation to be an any, and go-redis takes it for the string.
func (a *arguments) command(name, first string) []any {
	text, from := string(a.text), 0
	list, all := make([]string, len(a.ends)), make([]any, 2, 2+len(a.ends))
	all[0], all[1] = name, first
	for i, end := range a.ends {
		list[i] = text[from:end]
		all = append(all, &list[i])
		from = end
	}
	return all
}
