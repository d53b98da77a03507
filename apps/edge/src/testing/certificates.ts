import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new key and a certificate for a name, signed by itself; as PEM. */
export function makeCertificate(
  name: string,
  algorithm = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
): { certificate: string; key: string } {
  const dir = mkdtempSync(join(tmpdir(), 'certificate-'));
  const [key, certificate] = [join(dir, 'key'), join(dir, 'crt')];
  try {
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', ...algorithm, '-nodes'],
        ...['-days', '2', '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`],
        ...['-keyout', key, '-out', certificate],
      ],
      { stdio: 'ignore' },
    );
    return { certificate: readFileSync(certificate, 'utf8'), key: readFileSync(key, 'utf8') };
  } finally {
    rmSync(dir, { recursive: true });
  }
}
