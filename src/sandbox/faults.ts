import { z } from 'zod';

const when = z.enum(['before', 'after']);

/**
 * Trouble to be met on purpose. `before` means that the request is not performed (nothing rotates), `after` that it is
 * performed and only its answer suffers. All waits run on the sandbox's clock.
 */
const faultShape = z.discriminatedUnion('kind', [
  /** Another status. `body` is sent as it is, objects as JSON. */
  z.strictObject({
    kind: z.literal('status'),
    status: z.int().min(200).max(599),
    body: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
    headers: z.record(z.string(), z.string()).optional(),
    when: when.default('before'),
  }),
  /** The connection is cut without an answer. */
  z.strictObject({ kind: z.literal('drop'), when: when.default('before') }),
  /** A silence of `ms`, then the usual answer. With `before`, a caller who leaves meanwhile leaves nothing behind. */
  z.strictObject({ kind: z.literal('hang'), when: when.default('before'), ms: z.int().min(0) }),
  /** The answer breaks off in the middle. The request is performed. */
  z.strictObject({ kind: z.literal('truncate') }),
  /** Another body, such as an HTML page with status 200. The request is not performed. */
  z.strictObject({
    kind: z.literal('body'),
    status: z.int().min(200).max(599),
    contentType: z.string(),
    body: z.string(),
  }),
  /** A JSON answer of this many bytes. The request is not performed. */
  z.strictObject({ kind: z.literal('big'), bytes: z.int().min(16).max(100_000_000) }),
  /** The usual answer, drip by drip. The request is performed. */
  z.strictObject({ kind: z.literal('slow'), bytesPerSecond: z.int().min(1) }),
]);

export type Fault = z.output<typeof faultShape>;

/** Routes that faults can be set on; the ledger uses the same names. */
export const FAULT_ROUTES = [
  'authorize',
  'token',
  'revoke',
  'users',
  'accounts',
  'list-users',
  'list-meetings',
  'meeting',
  'join-token',
  'zak',
  'user-token',
] as const;

export type FaultRoute = (typeof FAULT_ROUTES)[number];

export const faultRuleShape = z.strictObject({
  route: z.enum(FAULT_ROUTES),
  /** Only requests of this app. */
  clientId: z.string().optional(),
  /** Only token requests of this grant type. */
  grantType: z.string().optional(),
  /** How many requests meet the fault before it is used up. */
  times: z.int().min(1).default(1),
  fault: faultShape,
});

export type FaultRuleInput = z.input<typeof faultRuleShape>;

/** The faults still to be met, oldest first. */
export interface Faults {
  add(rule: FaultRuleInput): void;
  /** Uses up one time of the oldest rule that fits the request. */
  take(request: { route: string; clientId: string | null; grantType: string | null }): Fault | null;
  clear(): void;
}

export function createFaults(): Faults {
  let rules: z.output<typeof faultRuleShape>[] = [];
  return {
    add: (rule) => {
      rules.push(faultRuleShape.parse(rule));
    },
    take: ({ route, clientId, grantType }) => {
      const rule = rules.find(
        (candidate) =>
          candidate.route === route &&
          (candidate.clientId === undefined || candidate.clientId === clientId) &&
          (candidate.grantType === undefined || candidate.grantType === grantType),
      );
      if (rule === undefined) return null;
      rule.times -= 1;
      if (rule.times === 0) rules = rules.filter((candidate) => candidate !== rule);
      return rule.fault;
    },
    clear: () => {
      rules = [];
    },
  };
}
