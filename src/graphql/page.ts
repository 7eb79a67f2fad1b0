/** Longest page of a connection; a longer one is refused. */
export const MAX_PAGE = 100;
/** How many items a page has where nobody says. */
export const DEFAULT_PAGE = 20;
