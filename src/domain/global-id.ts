/** The identifier by which the API knows a row: what `node(id:)` takes, and what webhooks carry. */
export const encodeGlobalId = (typename: string, id: string | number | bigint): string =>
  Buffer.from(`${typename}:${id}`).toString('base64url');
