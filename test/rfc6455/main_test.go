package rfc6455_test

import (
	"testing"

	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// Short names of package wstest.
const (
	fin  = wstest.Fin
	rsv1 = wstest.RSV1
	rsv2 = wstest.RSV2
	rsv3 = wstest.RSV3

	opContinuation = wstest.OpContinuation
	opText         = wstest.OpText
	opBinary       = wstest.OpBinary
	opClose        = wstest.OpClose
	opPing         = wstest.OpPing
	opPong         = wstest.OpPong
)

var (
	frame     = wstest.Masked
	longFrame = wstest.MaskedLong
	unmasked  = wstest.Unmasked
	head      = wstest.Header
	closing   = wstest.ClosePayload
)
