package throttle_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat/internal/throttle"
)

func TestSeenRemembersWhereAnOwnerWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := throttle.NewSeen(1000, time.Hour)
		s.Add("ana", "home")
		for i := range 100_000 { // of one owner
			s.Add("eva", fmt.Sprint(i))
		}
		has := func(owner, place string, want bool) {
			t.Helper()
			if got := s.Has(owner, place); got != want {
				t.Errorf("%s at %s: %v, want %v", owner, place, got, want)
			}
		}
		has("ana", "home", true)
		has("ana", "work", false)
		has("bob", "home", false)
		has("eva", "99999", true)
		<-time.After(59 * time.Minute)
		s.Add("ana", "work")
		has("ana", "home", true)
		<-time.After(time.Minute)
		has("ana", "home", false)
		has("ana", "work", true)
	})
}

func TestSeenForgetsOwnersBeyondItsBound(t *testing.T) {
	s := throttle.NewSeen(1000, time.Hour)
	s.Add("ana", "home")
	for i := range 499 {
		s.Add(fmt.Sprint(i), "home")
	}
	if !s.Has("ana", "home") {
		t.Error("ana is forgotten for 499 others")
	}
	for i := range 10_000 {
		s.Add(fmt.Sprint(i), "home")
		if n := s.Owners(); n > 1000 {
			t.Fatalf("%d owners are kept", n)
		}
	}
	if s.Has("ana", "home") {
		t.Error("ana is remembered after 10,000 others")
	}
}
