import { hashOf } from './mint.js';
import { type App, type Grant, grantKeyOf, isAdmin, type Token, type User } from './model.js';
import { nowMs, type World } from './world.js';

export interface TokenPair {
  accessToken: string;
  refreshToken: string;
  scopes: string[];
}

/** Rotated refresh tokens remembered for each grant, so that a reuse can be told from an unknown token. */
const ROTATED_KEPT = 20;

/** The user, unless Zoom has no such user (any more). */
export function liveUser(world: World, userId: string): User | null {
  const user = world.state.users.get(userId);
  return user === undefined || user.removed ? null : user;
}

export const grantOf = (world: World, app: App, user: User): Grant | null =>
  world.state.grants.get(grantKeyOf(app.clientId, user.id)) ?? null;

/** Records that the user allowed the app. Tokens of an earlier consent live until a code of the new one is redeemed. */
export function recordConsent(world: World, app: App, user: User, scopes: string[]): void {
  const key = grantKeyOf(app.clientId, user.id);
  const earlier = world.state.grants.get(key);
  world.state.grants.set(key, {
    clientId: app.clientId,
    userId: user.id,
    accountId: user.accountId,
    generation: earlier?.generation ?? 0,
    tokens: earlier?.tokens ?? [],
    scopes,
    authorizedAt: nowMs(world),
  });
  world.changed();
}

function mintToken(world: World, owner: Omit<Token, 'expiresAt' | 'rotatedAt'>): string {
  const { accessTokenSeconds, refreshTokenDays } = world.state.knobs;
  const issuedAt = nowMs(world);
  const seconds = owner.kind === 'access' ? accessTokenSeconds : refreshTokenDays * 86_400;
  const expiresAt = issuedAt + seconds * 1000;
  const value = world.mint.token({ ...owner, issuedAt, expiresAt });
  world.state.tokens.set(hashOf(value), { ...owner, expiresAt, rotatedAt: null });
  return value;
}

/** Forgets the grant's tokens that can no longer matter to any answer. */
function prune(world: World, grant: Grant): void {
  const { tokens } = world.state;
  const rotated = grant.tokens.filter((key) => typeof tokens.get(key)?.rotatedAt === 'number');
  const dispensable = new Set(rotated.slice(0, Math.max(0, rotated.length - ROTATED_KEPT)));
  for (const key of grant.tokens) {
    const token = tokens.get(key);
    if (token?.kind === 'access' && token.expiresAt <= nowMs(world)) dispensable.add(key);
  }
  for (const key of dispensable) tokens.delete(key);
  grant.tokens = grant.tokens.filter((key) => tokens.has(key));
}

function issuePair(world: World, grant: Grant, scopes: string[]): TokenPair {
  prune(world, grant);
  grant.generation += 1;
  const owner = {
    clientId: grant.clientId,
    userId: grant.userId,
    accountId: grant.accountId,
    scopes,
    grantKey: grantKeyOf(grant.clientId, grant.userId),
    generation: grant.generation,
  };
  const accessToken = mintToken(world, { ...owner, kind: 'access' });
  const refreshToken = mintToken(world, { ...owner, kind: 'refresh' });
  grant.tokens.push(hashOf(accessToken), hashOf(refreshToken));
  world.changed();
  return { accessToken, refreshToken, scopes };
}

/** Kills every token of the grant. */
export function killTokens(world: World, grant: Grant): void {
  for (const key of grant.tokens) world.state.tokens.delete(key);
  grant.tokens = [];
  world.changed();
}

/** Ends the grant: tokens dead, codes worthless, consent forgotten. */
export function endGrant(world: World, grant: Grant): void {
  killTokens(world, grant);
  for (const [key, code] of world.state.codes) {
    if (code.clientId === grant.clientId && code.userId === grant.userId) world.state.codes.delete(key);
  }
  world.state.grants.delete(grantKeyOf(grant.clientId, grant.userId));
}

/** First tokens of a new authorization; all older tokens of the same user and app die (Zoom's error 4741). */
export function issueForCode(world: World, grant: Grant, scopes: string[]): TokenPair {
  killTokens(world, grant);
  return issuePair(world, grant, scopes);
}

/** Whether a refresh token that was traded in before still works, by the knobs. */
function isReusable(world: World, grant: Grant, token: Token): boolean {
  const { refreshMode, graceSeconds, tolerance } = world.state.knobs;
  if (refreshMode === 'grace') return nowMs(world) - (token.rotatedAt ?? 0) <= graceSeconds * 1000;
  if (refreshMode === 'tolerance') return grant.generation - token.generation <= tolerance;
  return false;
}

/**
 * Trades a refresh token for a new pair; the one presented is dead from here on, unless `refreshMode` says otherwise.
 * It is synchronous, so of two requests with the same token exactly one succeeds.
 *
 * @returns the pair, or a word for the ledger that says why there is none; Zoom's answer does not tell the cases apart.
 */
export function rotate(world: World, app: App, refreshToken: string): TokenPair | string {
  const token = world.state.tokens.get(hashOf(refreshToken));
  if (token?.kind !== 'refresh' || token.clientId !== app.clientId || token.grantKey === null) return 'unknown-token';
  const grant = world.state.grants.get(token.grantKey);
  if (grant === undefined) return 'unknown-token';
  if (app.disabled) return 'app-disabled';
  if (liveUser(world, token.userId) === null) return 'user-removed';
  if (token.expiresAt <= nowMs(world)) return 'expired-token';
  if (token.rotatedAt !== null && !isReusable(world, grant, token)) {
    if (world.state.knobs.refreshMode === 'family-revoke') killTokens(world, grant);
    return 'reused-token';
  }
  token.rotatedAt ??= nowMs(world);
  if (!world.state.knobs.accessTokenSurvivesRefresh) {
    for (const key of grant.tokens) if (world.state.tokens.get(key)?.kind === 'access') world.state.tokens.delete(key);
  }
  return issuePair(world, grant, token.scopes);
}

/** A server-to-server token. Earlier ones stay valid. Null when the account has no admin left to speak for. */
export function issueForAccount(world: World, app: App): { accessToken: string; scopes: string[] } | null {
  const { tokens, users } = world.state;
  const admin = [...users.values()].find((user) => user.accountId === app.accountId && isAdmin(user) && !user.removed);
  if (admin === undefined) return null;
  for (const [key, token] of tokens) if (token.grantKey === null && token.expiresAt <= nowMs(world)) tokens.delete(key);
  const scopes = app.scopes.map(({ scope }) => scope);
  const { clientId, accountId } = app;
  const owner = {
    kind: 'access',
    clientId,
    userId: admin.id,
    accountId,
    scopes,
    grantKey: null,
    generation: 0,
  } as const;
  const accessToken = mintToken(world, owner);
  world.changed();
  return { accessToken, scopes };
}

/** The access token's record if it works now; otherwise whether it ran out or is not (any more) known. */
export function readAccessToken(world: World, accessToken: string): Token | 'expired' | 'invalid' {
  const token = world.state.tokens.get(hashOf(accessToken));
  if (token?.kind !== 'access') return 'invalid';
  if (world.state.apps.get(token.clientId)?.disabled !== false) return 'invalid';
  if (liveUser(world, token.userId) === null) return 'invalid';
  return token.expiresAt <= nowMs(world) ? 'expired' : token;
}
