/** Who administers an app at Zoom: each user for themselves, an admin for the account, or the account's own server. */
export type AppUsage = 'USER_OPERATION' | 'ADMIN_MANAGEMENT' | 'SERVER_TO_SERVER';

export type UserRole = 'Owner' | 'Admin' | 'Member';

export interface Account {
  id: string;
  name: string;
}

export interface User {
  id: string;
  accountId: string;
  email: string;
  displayName: string;
  role: UserRole;
  /** Deleted at Zoom: the tokens are dead and the user can no longer be looked up. */
  removed: boolean;
  /** Number of the personal meeting room, where it is not the one that the user began with. */
  pmi?: number;
  /** Local recording is switched off for the user, or the plan lacks it. */
  localRecordingOff?: boolean;
}

/** A meeting as scheduled at Zoom. */
export interface Meeting {
  /** Eleven digits. */
  id: number;
  uuid: string;
  hostId: string;
  topic: string;
  /** 1 begins at once and is in no list; 2 is scheduled; 3 and 8 recur. */
  type: 1 | 2 | 3 | 8;
  /** Epoch milliseconds. */
  createdAt: number;
  startAt: number;
  durationMinutes: number;
}

export interface AppScope {
  scope: string;
  /** The person at the consent page may untick it. */
  optional: boolean;
}

/** An app as registered at the Zoom Marketplace, secrets included: nothing here guards anything real. */
export interface App {
  clientId: string;
  clientSecret: string;
  /** Signs webhooks (Zoom's "secret token"). */
  webhookSecret: string;
  name: string;
  usage: AppUsage;
  /** The account that owns the app; for SERVER_TO_SERVER the only account it can speak for. */
  accountId: string;
  scopes: AppScope[];
  redirectUris: string[];
  webhookUrl: string | null;
  published: boolean;
  disabled: boolean;
}

/** What one user agreed to for one app. There is at most one live grant for each such pair. */
export interface Grant {
  clientId: string;
  userId: string;
  accountId: string;
  scopes: string[];
  /** Epoch milliseconds of the last Allow. */
  authorizedAt: number;
  /** Counts the token pairs issued since the last authorization. */
  generation: number;
  /** Keys of this grant's tokens in `State.tokens`, oldest first. */
  tokens: string[];
}

/** A token as remembered: its value is not kept, `State.tokens` is keyed by its hash. */
export interface Token {
  kind: 'access' | 'refresh';
  clientId: string;
  /** The user it speaks for; a server-to-server token speaks for an admin of its account. */
  userId: string;
  accountId: string;
  scopes: string[];
  /** Null for server-to-server tokens. */
  grantKey: string | null;
  generation: number;
  /** Epoch milliseconds. */
  expiresAt: number;
  /** When a refresh token was first traded in, in epoch milliseconds. */
  rotatedAt: number | null;
}

export interface CodeChallenge {
  value: string;
  method: 'plain' | 'S256';
}

export interface AuthorizationCode {
  clientId: string;
  userId: string;
  scopes: string[];
  redirectUri: string;
  challenge: CodeChallenge | null;
  /** Epoch milliseconds. */
  expiresAt: number;
}

/** A webhook that is not settled yet: waiting for its first attempt or for a retry. */
export interface Delivery {
  id: string;
  clientId: string;
  event: string;
  /** The signed bytes, compact JSON. */
  body: string;
  trackingId: string;
  /** Epoch seconds that go into the signature. */
  timestamp: number;
  /** Attempts already made. */
  attempts: number;
  /** Epoch milliseconds. */
  firstAttemptAt: number;
  nextAttemptAt: number;
}

export const grantKeyOf = (clientId: string, userId: string): string => `${clientId}/${userId}`;

export const isAdmin = (user: User): boolean => user.role !== 'Member';
