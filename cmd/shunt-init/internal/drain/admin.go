package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// ErrAdmin marks errors of calls to the proxy's admin interface.
var ErrAdmin = errors.New("admin interface")

const (
	// answerTimeout is how long the proxy may take to answer.
	answerTimeout = 5 * time.Second
	// maxAnswer bounds how much of an answer is read.
	maxAnswer = 16 << 20
)

// admin is Envoy's admin interface, at host:port. It does without net/http, which
// alone is larger than all of shunt-init.
type admin struct{ address string }

// request sends a request and returns the body of the answer, whose status has to
// be 200.
func (a admin) request(ctx context.Context, method, target string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", a.address)
	if err != nil {
		return "", a.failed(err)
	}
	defer conn.Close()
	// The end of the context also ends reads and writes of the connection.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	// HTTP/1.0 would avoid chunks, but Envoy answers it with 426 here.
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		method, target, a.address); err != nil {
		return "", a.failed(err)
	}
	body, err := readResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)))
	if err != nil {
		return "", a.failed(fmt.Errorf("%s %s: %w", method, target, err))
	}
	return body, nil
}

func (a admin) failed(err error) error { return fmt.Errorf("%w %s: %w", ErrAdmin, a.address, err) }

// readResponse reads an HTTP/1.1 response that ends with its connection, and
// returns its body.
func readResponse(r *bufio.Reader) (string, error) {
	status, err := readLine(r)
	if err != nil {
		return "", err
	}
	version, rest, _ := strings.Cut(status, " ")
	if code, _, _ := strings.Cut(rest, " "); version != "HTTP/1.1" || code != "200" {
		return "", fmt.Errorf("the answer is %q; accepted: HTTP/1.1 200", status)
	}
	chunked := false
	for {
		header, err := readLine(r)
		if err != nil {
			return "", err
		}
		if header == "" {
			break
		}
		name, value, _ := strings.Cut(header, ":")
		chunked = chunked || strings.EqualFold(name, "Transfer-Encoding") && strings.EqualFold(strings.TrimSpace(value), "chunked")
	}
	if chunked {
		return readChunks(r)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return string(body), nil
}

// readChunks reads a chunked body (RFC 9112, 7.1).
func readChunks(r *bufio.Reader) (string, error) {
	var body strings.Builder
	for {
		head, err := readLine(r)
		if err != nil {
			return "", err
		}
		digits, _, _ := strings.Cut(head, ";")
		size, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 31)
		if err != nil {
			return "", fmt.Errorf("the answer has a chunk of size %q; accepted: a hexadecimal number", head)
		}
		if size == 0 {
			return body.String(), nil
		}
		if _, err := io.CopyN(&body, r, int64(size)); err != nil {
			return "", fmt.Errorf("reading a chunk of the answer: %w", truncated(err))
		}
		end, err := readLine(r)
		if err != nil {
			return "", err
		}
		if end != "" {
			return "", fmt.Errorf("the answer has a chunk followed by %q; accepted: a line end after %d bytes", end, size)
		}
	}
}

// readLine reads a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	text, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", truncated(err))
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), nil
}

// truncated returns the error of an answer that ends too early.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
