-- Purpose: the end of the push: it fails unless every org-scoped table has all of its parts, see tenancy.verify_schema().
-- Touches: nothing.
-- Locks:   none that anyone waits for.
-- Undo:    none needed.

set search_path = '';
set statement_timeout = '1min';

select tenancy.assert_complete();
