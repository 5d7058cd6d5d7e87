package chat

import (
	"context"
	"errors"
	"slices"
)

// messageRun is messages of a channel without a gap between them.
type messageRun struct {
	epoch string
	first uint64 // sequence number of the oldest
	sizes []int  // of the contents, in bytes, oldest first

	// messages has the same messages, or is nil if their content exceeds readBytes: then
	// they are read again when they are sent.
	messages []Message
}

// end returns the sequence number after the run.
func (r *messageRun) end() uint64 { return r.first + uint64(len(r.sizes)) }

// add appends messages to the run.
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

// prepend adds the newest n messages of a run that ends where this one begins.
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

// shed drops the messages if their content exceeds readBytes.
func (r *messageRun) shed() {
	if contentBytes(r.messages) > readBytes {
		r.messages = nil
	}
}

// between returns the last run of kept messages between two sequence numbers, without
// those two.
func (r historyReader) between(ctx context.Context, epoch string, low, high uint64) (run messageRun, err error) {
	run.epoch = epoch
	at := Position{Epoch: epoch, Seq: low}
	for at.Seq+1 < high {
		msgs, err := r.after(ctx, at, Limit{Count: int(min(high-1-at.Seq, readCount)), Bytes: readBytes})
		gap := errors.Is(err, ErrGone)
		if err != nil && !gap {
			return run, err
		}
		beyond := func(m Message) bool { return m.Position.Epoch != epoch || m.Position.Seq >= high }
		if i := slices.IndexFunc(msgs, beyond); i >= 0 {
			msgs = msgs[:i]
		}
		if len(msgs) == 0 || msgs[0].Position.Seq <= at.Seq {
			return run, nil
		}
		if gap {
			run = messageRun{epoch: epoch}
		}
		run.add(msgs)
		at = msgs[len(msgs)-1].Position
	}
	return run, nil
}

// runBefore returns the last messages before end that fit on a page. more says whether the
// message before them is kept. The run is empty if the message right before end is not kept:
// then newest is the newest message found before it, 0 for none.
func (r historyReader) runBefore(ctx context.Context, end Position, limit int) (run messageRun, newest uint64, more bool, err error) {
	run = messageRun{epoch: end.Epoch, first: end.Seq}
	bytes := 0
	// The first read may return more than a page: sizes are not known yet.
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
			return run, 0, false, nil // there is a gap before it
		}
		count = min(1+(pageBytes-bytes)/max(1, bytes/len(run.sizes)), readCount)
	}
	return run, 0, false, nil
}

// runBeforeGap returns the last run of messages before a gap that ends at end, like
// runBefore. newest is a message that is known to be kept before end, 0 for none.
func (r historyReader) runBeforeGap(ctx context.Context, end Position, newest uint64, limit int) (run messageRun, more bool, err error) {
	last, err := r.last(ctx)
	if err != nil || last.Epoch != end.Epoch || end.Seq > last.Seq+1 {
		return run, false, err // the history does not know end
	}
	if newest == 0 {
		if newest, err = r.newestBefore(ctx, end); err != nil || newest == 0 {
			return run, false, err
		}
	}
	run, _, more, err = r.runBefore(ctx, Position{Epoch: end.Epoch, Seq: newest + 1}, limit)
	return run, more, err
}

// newestBefore returns the sequence number of the newest kept message before end, 0 for
// none. It is a binary search: a gap may be as wide as the history.
func (r historyReader) newestBefore(ctx context.Context, end Position) (uint64, error) {
	keptBehind := func(seq uint64) (uint64, error) { // 0: none before end
		p, err := r.keptAfter(ctx, Position{Epoch: end.Epoch, Seq: seq})
		if p.Epoch != end.Epoch || p.Seq <= seq || p.Seq >= end.Seq {
			return 0, err
		}
		return p.Seq, err
	}
	kept, err := keptBehind(0)
	if err != nil || kept == 0 {
		return 0, err
	}
	for none := end.Seq - 1; kept < none; { // no message between none and end is kept
		middle := kept + (none-kept)/2
		next, err := keptBehind(middle)
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

// newestOf reads the newest part of a run that fits into readBytes.
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

// contentBytes returns the bytes of content of messages.
func contentBytes(msgs []Message) (bytes int) {
	for _, m := range msgs {
		bytes += len(m.Content)
	}
	return bytes
}
