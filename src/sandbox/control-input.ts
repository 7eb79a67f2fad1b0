import { z } from 'zod';
import { knobsShape } from './knobs.js';

const webUrl = z.url({ protocol: /^https?$/ });

/** As Zoom's redirect field takes it: absolute, http or https, without a fragment (RFC 6749 §3.1.2). */
const redirectUri = webUrl.refine((uri) => !uri.includes('#'), 'A redirect URI has no fragment.');

const scopeName = z.string().regex(/^[a-z0-9_]+(:[a-z0-9_]+)*$/, 'Not a scope name.');

const scopes = z
  .array(z.strictObject({ scope: scopeName, optional: z.boolean().default(false) }))
  .min(1)
  .refine((list) => new Set(list.map(({ scope }) => scope)).size === list.length, 'A scope is listed twice.');

export const appInput = z.strictObject({
  name: z.string().min(1).max(200),
  usage: z.enum(['USER_OPERATION', 'ADMIN_MANAGEMENT', 'SERVER_TO_SERVER']),
  scopes,
  redirectUris: z.array(redirectUri).default([]),
  webhookUrl: webUrl.nullable().default(null),
  published: z.boolean().default(false),
  /** The owning account; Acme unless told. */
  accountId: z.string().optional(),
});

export const appPatch = z
  .strictObject({
    name: z.string().min(1).max(200),
    scopes,
    redirectUris: z.array(redirectUri),
    webhookUrl: webUrl.nullable(),
    published: z.boolean(),
    disabled: z.boolean(),
  })
  .partial();

export const userInput = z.strictObject({
  email: z.email().toLowerCase(),
  displayName: z.string().min(1).max(200),
  /** Acme unless told. */
  accountId: z.string().optional(),
  role: z.enum(['Owner', 'Admin', 'Member']).default('Member'),
});

export const removalInput = z.strictObject({
  /** How the user leaves: their tokens die in either case. */
  how: z.enum(['deleted', 'deactivated']).default('deleted'),
  /** Whether apps are told. */
  webhooks: z.boolean().default(false),
});

export const accountInput = z.strictObject({ name: z.string().min(1).max(200) });

export const grantInput = z.strictObject({ clientId: z.string(), userId: z.string() });

export const expiryInput = z.strictObject({ clientId: z.string(), userId: z.string() }).partial();

export const knobsPatch = knobsShape.partial();

/** The fields that were given a value. */
export const given = <T extends object>(patch: T): { [Name in keyof T]?: Exclude<T[Name], undefined> } =>
  Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined)) as never;
