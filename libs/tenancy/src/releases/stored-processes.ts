import { processDefinition, type ProcessDefinition } from '@bulkhead/protocol';
import { z } from 'zod';

const processes = z.array(processDefinition);

/** The processes of a stored release: fields that came after it was stored have their defaults. */
export const readProcesses = (stored: unknown): readonly ProcessDefinition[] =>
  processes.parse(stored);
