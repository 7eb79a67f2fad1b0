import type { RegisteredApp } from './story.js';
import type { TestServer } from './server.js';
import { allow, codeOf, redeem, refresh, type Tokens, tokensOf } from './sandbox-client.js';

type Server = Pick<TestServer, 'sandbox' | 'data'>;

/** Tokens of a Zoom user that another product has obtained with the same app. */
export async function obtainElsewhere(server: Server, app: RegisteredApp, zoomUserId: string): Promise<Tokens> {
  const { sandbox } = server;
  const user = sandbox.control.users().find(({ id }) => id === zoomUserId);
  if (user === undefined) throw new Error('The sandbox has no such user.');
  const redirect = { redirect_uri: app.redirectUri };
  const callback = await allow(sandbox, app.atZoom, user, redirect);
  return tokensOf(await redeem(sandbox, app.atZoom, { code: codeOf(callback), ...redirect }));
}

/** Whether the one who had the refresh token can still use it. */
export const worksElsewhere = async (server: Server, app: RegisteredApp, tokens: Tokens): Promise<boolean> =>
  (await refresh(server.sandbox, app.atZoom, tokens.refreshToken)).status === 200;

/** Imports tokens by API. */
export async function importTokens(server: Server, input: Record<string, unknown>): Promise<any> {
  const { importGrant } = await server.data(
    `mutation ($input: ImportGrantInput!) {
      importGrant(input: $input) {
        __typename
        ... on ImportGrantSuccess {
          grant {
            __typename id providerAccountId health { status reason } missingScopes { name }
            credentialInfo { version refreshTokenExpiresAt }
            ... on Installation { installedBy { providerUserId } }
            ... on UserConnection { externalUserId providerUser { providerUserId email } }
          }
        }
        ... on GrantRefusedError { failure }
        ... on InvalidInputError { path }
        ... on ProviderUnavailableError { reason retryAfterSeconds }
        ... on Error { message }
      }
    }`,
    { input },
  );
  return importGrant;
}
