/** Kept apart from the package's main entry, for the command line has no use for it. */
import { fileURLToPath } from 'node:url';

/** relay.proto for @grpc/proto-loader; the build has no copy of its own. */
export const relayProtoFile = fileURLToPath(
  new URL('../../src/streams/relay.proto', import.meta.url),
);
