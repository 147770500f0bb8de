-- pg-delta: transaction=false
-- Purpose: phase 3: every existing row gets the organization of its owner, else of the row it references, else the default.
-- Touches: org_id of rows where it is NULL, in batches that commit; nothing where phase 2 put the value into the catalog.
-- Locks:   rows of one batch, for about a tenth of a second; rows that others hold are skipped and come last.
-- Undo:    none of its own: the values go with the column, see tenancy.roll_back(1).

set search_path = '';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$ begin while tenancy.advance('backfill') loop commit; end loop; end $$;
