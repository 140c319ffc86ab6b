#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A golden image on a web server as a read-only disk.img: its bytes, no writes, and a change of the
# file is noticed, not mixed in.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 /dev/fuse

MNT=$T/mnt
IMG=$MNT/disk.img

# serve: a server of ranges, with one ETag for the content as it is at each request.
serve() {
	cat >"$T/server.py" <<-'END'
		import hashlib, http.server, os, re, sys
		class Handler(http.server.BaseHTTPRequestHandler):
		    protocol_version = "HTTP/1.1"
		    def log_message(self, *args):
		        pass
		    def do_HEAD(self):
		        self.do_GET()
		    def do_GET(self):
		        path = os.path.join(sys.argv[1], os.path.basename(self.path))
		        if not os.path.isfile(path):
		            self.send_error(404)
		            return
		        with open(path, "rb") as file:
		            size = os.fstat(file.fileno()).st_size
		            tag = '"%s"' % hashlib.sha1(file.read(4096)).hexdigest()
		            asked = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
		            if "plain" in path or self.headers.get("If-Range", tag) != tag:
		                asked = None
		            first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
		            self.send_response(206 if asked else 200)
		            self.send_header("ETag", tag)
		            self.send_header("Accept-Ranges", "bytes")
		            self.send_header("Content-Length", last - first + 1)
		            if asked:
		                self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, size))
		            self.end_headers()
		            file.seek(first)
		            if self.command == "GET":
		                self.wfile.write(file.read(last - first + 1))
		server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
		print(server.server_address[1], flush=True)
		server.serve_forever()
	END
	python3 "$T/server.py" "$T/www" >"$T/port" 2>"$T/server.log" &
	disown $!
	on_exit stop_pid $!
	wait_for 10 test -s "$T/port"
	URL=http://127.0.0.1:$(cat "$T/port")
}

begin() {
	mount_nb --log "$T/nearblk.log" --cache-size 32M "$URL/img" "$MNT"
}

test_content() {
	begin
	assert_eq "$(status_key "$MNT" read_only)" true read_only
	assert_eq "$(stat -c %s "$IMG")" "$(stat -c %s "$T/www/img")" "size of disk.img"
	cmp "$IMG" "$T/www/img"
	nb drop "$MNT"
	drop_page_cache "$IMG"
	cmp "$IMG" "$T/www/img"
}

test_no_writes() {
	assert_fails any 'Read-only file system' dd if=/dev/zero of="$IMG" bs=4k count=1 conv=notrunc
	assert_fails any 'Read-only file system' fallocate --punch-hole --offset 0 --length 4096 "$IMG"
	nb flush "$MNT"
	assert_eq "$(status_key "$MNT" state)" clean state
	cmp "$IMG" "$T/www/img"
	umount_nb "$MNT" | grep -q 'unmounted' || fail "umount is silent"
}

# What is here stays good; what is not here cannot be had any more, and is not taken from another file.
test_change_is_noticed() {
	begin
	nb drop "$MNT"
	drop_page_cache "$IMG"
	head -c 1M "$IMG" | cmp -n 1M - "$T/www/img"
	random_file "$T/www/img" 20M 2
	cmp -s -n 1M "$IMG" "$T/www/img" && fail "the changed file is read: this test sees nothing"
	assert_fails any 'Input/output error' dd if="$IMG" of=/dev/null bs=64k skip=250 iflag=direct
	grep -q "changed" "$T/nearblk.log" || fail "the log does not say that the file changed"
	umount_nb "$MNT" >/dev/null
	assert_fails 1 '(another|changed)' nb mount --cache-dir "$T/cache" "$URL/img" "$MNT"
}

test_refusals() {
	assert_fails 1 '(404|not found|Not Found)' nb mount --cache-dir "$T/c2" "$URL/absent" "$MNT"
	random_file "$T/www/plain" 1M 3
	assert_fails 1 'range' nb mount --cache-dir "$T/c3" "$URL/plain" "$MNT"
	assert_fails 1 'refused|connect' nb mount --cache-dir "$T/c4" --connect-timeout 3 \
		"http://127.0.0.1:$(free_port)/img" "$MNT"
}

mkdir "$T/www"
random_file "$T/www/img" 20M 1
serve
test_content
test_no_writes
test_change_is_noticed
test_refusals
