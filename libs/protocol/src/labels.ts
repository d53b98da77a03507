import { z } from 'zod';

export const mostLabels = 32;
export const labelName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$/, 'use 1 to 63 of a-z, 0-9 and . _ / -');
export const labelValue = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/,
    'use 1 to 63 letters, digits and . _ -',
  );

/** Labels of a node, or those that a process asks of one. */
export const nodeLabels = z
  .record(labelName, labelValue)
  .refine((labels) => Object.keys(labels).length <= mostLabels, `at most ${mostLabels} labels`);

/** Labels as the API gives them, by name. */
export const labelList = (
  labels: Readonly<Record<string, string>>,
): { name: string; value: string }[] =>
  Object.entries(labels)
    .map(([name, value]) => ({ name, value }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
