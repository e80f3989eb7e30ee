/**
 * Tasks that are told the client's address by a header of the PROXY protocol, version 2, and say what they were told: each
 * answers an HTTP request with the header before it, in hexadecimal digits.
 */
import assert from 'node:assert/strict';
import type { Lab } from './lab.ts';

/** The header of a connection over IPv4 has 28 bytes. */
const answer = [
  `header=$(dd bs=1 count=28 2>/dev/null | hexdump -v -e '28/1 "%02x"')`,
  `while read -r line && [ "\${#line}" -gt 1 ]; do :; done`,
  `printf 'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' "\${#header}" "$header"`,
].join('\n');

/** Flags, image and command of a service whose tasks serve so on port 80. */
export const toldClient = [
  ...['--label', 'shoal.ingress=proxy-protocol', '--stop-grace-period', '5s', 'busybox:lab'],
  ...['sh', '-c', `cat >/answer <<'END'\n${answer}\nEND\nexec nc -ll -p 80 -e sh /answer`],
];

/** Client, address that was asked, and its port, as a task was told them when `to` was asked from there. */
export async function toldBy(lab: Lab, from: string, to: string, port: number): Promise<string> {
  const { stdout } = await lab.script('exec', from, 'curl', '-s', '-m', '5', `http://${to}:${port}/`);
  const header = Buffer.from(stdout.trim(), 'hex');
  assert.equal(header.subarray(0, 16).toString('hex'), '0d0a0d0a000d0a515549540a2111000c', stdout);
  return `${header.subarray(16, 20).join('.')} ${header.subarray(20, 24).join('.')} ${header.readUInt16BE(26)}`;
}
