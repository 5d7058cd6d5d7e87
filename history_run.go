package chat

import (
	"context"
	"errors"
	"slices"
)

// messageRun is messages of a channel without a hole between them.
type messageRun struct {
	epoch string
	first uint64 // sequence number of the oldest
	sizes []int  // of the contents, oldest first

	// messages are the same, nil when there is more content than readBytes: then they
	// are read again when they are sent.
	messages []Message
}

// end is the sequence number behind the run.
func (r *messageRun) end() uint64 { return r.first + uint64(len(r.sizes)) }

// add puts messages behind the run.
func (r *messageRun) add(msgs []Message) {
	if len(r.sizes) == 0 {
		r.first = msgs[0].Position.Seq
	}
	whole := len(r.messages) == len(r.sizes)
	for _, m := range msgs {
		r.sizes = append(r.sizes, len(m.Content))
	}
	if whole {
		r.messages = append(r.messages, msgs...)
		r.shed()
	}
}

// prepend puts the newest n messages of a run that ends where this one begins before it.
func (r *messageRun) prepend(of messageRun, n int) {
	from := len(of.sizes) - n
	whole := len(r.messages) == len(r.sizes) && len(of.messages) == len(of.sizes)
	r.first -= uint64(n)
	r.sizes = slices.Concat(of.sizes[from:], r.sizes)
	if !whole {
		r.messages = nil
		return
	}
	r.messages = slices.Concat(of.messages[from:], r.messages)
	r.shed()
}

// shed drops the messages when they are too much to keep.
func (r *messageRun) shed() {
	if contentBytes(r.messages) > readBytes {
		r.messages = nil
	}
}

// between is the last run of what is kept between two sequence numbers, without those.
func (r historyReader) between(ctx context.Context, epoch string, low, high uint64) (run messageRun, err error) {
	run.epoch = epoch
	at := Position{Epoch: epoch, Seq: low}
	for at.Seq+1 < high {
		msgs, err := r.after(ctx, at, Limit{Count: int(min(high-1-at.Seq, readCount)), Bytes: readBytes})
		hole := errors.Is(err, ErrGone)
		if err != nil && !hole {
			return run, err
		}
		behind := func(m Message) bool { return m.Position.Epoch != epoch || m.Position.Seq >= high }
		if i := slices.IndexFunc(msgs, behind); i >= 0 {
			msgs = msgs[:i]
		}
		if len(msgs) == 0 || msgs[0].Position.Seq <= at.Seq {
			return run, nil
		}
		if hole {
			run = messageRun{epoch: epoch}
		}
		run.add(msgs)
		at = msgs[len(msgs)-1].Position
	}
	return run, nil
}

// runBefore is the last messages before end, as many as go onto a page, and whether the
// one before them is kept, too. There are none when the one right before end is not
// kept: then newest is the newest that was found before it, 0 for none.
func (r historyReader) runBefore(ctx context.Context, end Position, limit int) (run messageRun, newest uint64, more bool, err error) {
	run = messageRun{epoch: end.Epoch, first: end.Seq}
	bytes := 0
	// What is read from somewhere before end may be more than a page.
	count := min(max(1, pageBytes/r.service.cfg.contentLimit), readCount)
	for run.first > 1 {
		count = min(count, limit+1-len(run.sizes), int(min(run.first-1, maxPage)))
		chunk, err := r.between(ctx, end.Epoch, run.first-1-uint64(count), run.first)
		if err != nil {
			return run, 0, false, err
		}
		if len(chunk.sizes) == 0 || chunk.end() != run.first {
			if len(run.sizes) == 0 && len(chunk.sizes) > 0 {
				newest = chunk.end() - 1
			}
			return run, newest, false, nil
		}
		n := 0
		for _, size := range slices.Backward(chunk.sizes) {
			if len(run.sizes)+n == limit || bytes >= pageBytes {
				break
			}
			n++
			bytes += size
		}
		run.prepend(chunk, n)
		switch {
		case n < len(chunk.sizes):
			return run, 0, true, nil
		case len(run.sizes) == limit || bytes >= pageBytes:
			more, err = r.keeps(ctx, Position{Epoch: run.epoch, Seq: run.first - 1})
			return run, 0, more, err
		case len(chunk.sizes) < count:
			return run, 0, false, nil // there is a hole before it
		}
		count = min(1+(pageBytes-bytes)/max(1, bytes/len(run.sizes)), readCount)
	}
	return run, 0, false, nil
}

// runBeforeHole is the last run of messages before a hole that ends at end, as runBefore
// has it. newest is the newest that is known to be kept before end, 0 for none.
func (r historyReader) runBeforeHole(ctx context.Context, end Position, newest uint64, limit int) (run messageRun, more bool, err error) {
	last, err := r.last(ctx)
	if err != nil || last.Epoch != end.Epoch || end.Seq > last.Seq+1 {
		return run, false, err // where end is nobody knows
	}
	if newest == 0 {
		if newest, err = r.newestBefore(ctx, end); err != nil || newest == 0 {
			return run, false, err
		}
	}
	run, _, more, err = r.runBefore(ctx, Position{Epoch: end.Epoch, Seq: newest + 1}, limit)
	return run, more, err
}

// newestBefore is the sequence number of the newest message that is kept before end, 0
// for none. It is searched by halves: a hole may be as wide as a history.
func (r historyReader) newestBefore(ctx context.Context, end Position) (uint64, error) {
	behind := func(seq uint64) (uint64, error) { // 0: none before end
		p, err := r.keptAfter(ctx, Position{Epoch: end.Epoch, Seq: seq})
		if p.Epoch != end.Epoch || p.Seq <= seq || p.Seq >= end.Seq {
			return 0, err
		}
		return p.Seq, err
	}
	kept, err := behind(0)
	if err != nil || kept == 0 {
		return 0, err
	}
	for none := end.Seq - 1; kept < none; { // nothing is kept between none and end
		middle := kept + (none-kept)/2
		next, err := behind(middle)
		if err != nil {
			return 0, err
		}
		if next == 0 {
			none = middle
		} else {
			kept = next
		}
	}
	return kept, nil
}

// keeps reports whether a message is kept.
func (r historyReader) keeps(ctx context.Context, p Position) (bool, error) {
	if p.Seq == 0 {
		return false, nil
	}
	kept, err := r.keptAfter(ctx, Position{Epoch: p.Epoch, Seq: p.Seq - 1})
	return kept == p, err
}

// newestOf is the newest part of a run that is kept in memory until it is sent.
func (r historyReader) newestOf(ctx context.Context, run messageRun) (messageRun, error) {
	n, bytes := 0, 0
	for _, size := range slices.Backward(run.sizes) {
		if n > 0 && bytes+size > readBytes {
			break
		}
		n++
		bytes += size
	}
	return r.between(ctx, run.epoch, run.end()-1-uint64(n), run.end())
}

// contentBytes is how much content messages have.
func contentBytes(msgs []Message) (bytes int) {
	for _, m := range msgs {
		bytes += len(m.Content)
	}
	return bytes
}
