import type { NatsTrust } from './identity.ts';

/**
 * nats-server's configuration file. No monitoring port, no WebSocket, MQTT, leaf nodes or
 * `no_auth_user`: one plain listener on loopback. Anything but loopback needs mutual TLS in front,
 * because malformed JWTs have crashed servers before authentication (GHSA-g33f).
 */
export function natsConfig(options: {
  host: string;
  port: number;
  storeDir: string;
  trust: NatsTrust;
}): string {
  const { host, port, storeDir, trust } = options;
  const preload = trust.accounts.map(
    (account) => `  ${account.id}: ${account.jwt} # ${account.name}`,
  );
  return `# Written by deploy/; the next \`npm run up\` writes it again.
server_name: bulkhead-1
listen: "${host}:${port}"
max_payload: 1MB
max_control_line: 8KB
# A client that does not read must not hold the others' messages in memory.
max_pending: 64MB
write_deadline: "10s"
lame_duck_duration: "30s"
lame_duck_grace_period: "1s"

operator: ${trust.operatorJwt}
system_account: ${trust.systemAccount}
resolver: MEMORY
resolver_preload: {
${preload.join('\n')}
}

jetstream {
  store_dir: ${JSON.stringify(storeDir)}
  max_memory_store: 256MB
  max_file_store: 8GB
}
`;
}
