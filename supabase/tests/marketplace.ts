import type { Application } from "./applications.ts";
import { defaultOrgId } from "./organizations.ts";

const user = (number: number) => `md5('marketplace user ${number}')::uuid`;

/**
 * A shop is an organization, and everyone without a shop is one alone. What is sold belongs to who sells it, whatever is said and
 * written about it too.
 */
export const marketplace: Application = {
  name: "marketplace",
  mostDecisions: 6,
  /** The shop joined first, else the organization that has the user's address as its name. */
  members: `
    select users.id as user_id, coalesce(joined.shop_id, personal.id) as org_id
    from auth.users
    left join lateral (
      select shop_id from public.shop_members where profile_id = users.id order by joined_at limit 1
    ) as joined on true
    left join public.organizations as personal on personal.name = users.email
  `,
  expectations: {
    profiles: `
      select profiles.*, members.org_id as expected
      from public.profiles
      left join members on members.user_id = profiles.id
    `,
    listings: `
      select listings.*, members.org_id as expected
      from public.listings
      left join members on members.user_id = listings.seller_id
    `,
    orders: `
      select orders.*, coalesce(seller.org_id, listings.org_id, buyer.org_id) as expected
      from public.orders
      left join members as seller on seller.user_id = orders.seller_id
      left join public.listings on listings.id = orders.listing_id
      left join members as buyer on buyer.user_id = orders.buyer_id
    `,
    order_events: `
      select order_events.*, orders.org_id as expected
      from public.order_events
      left join public.orders on orders.id = order_events.order_id
    `,
    messages: `
      select messages.*, coalesce(orders.org_id, recipient.org_id) as expected
      from public.messages
      left join public.orders on orders.id = messages.order_id
      left join members as recipient on recipient.user_id = messages.recipient_id
    `,
    reviews: `
      select reviews.*, listings.org_id as expected
      from public.reviews
      left join public.listings on listings.id = reviews.listing_id
    `,
    favourites: `
      select favourites.*, members.org_id as expected
      from public.favourites
      left join members on members.user_id = favourites.profile_id
    `,
    payouts: `
      select payouts.*, members.org_id as expected
      from public.payouts
      left join members on members.user_id = payouts.seller_id
    `,
    suppliers: `
      select suppliers.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.suppliers
      left join members on members.user_id = suppliers.owner_id
    `,
  },
  withDefault: ["suppliers"],
  inserts: [
    {
      what: "an order that somebody without a shop places, with the event that a trigger writes",
      statement: `
        insert into public.orders (id, buyer_id, seller_id, listing_id, amount)
        select 9001, ${user(40)}, seller_id, id, price from public.listings where id = md5('listing 1')::uuid
      `,
    },
    {
      what: "an order of what a closed account sold",
      statement: `
        insert into public.orders (id, buyer_id, listing_id, amount) values (9002, ${
        user(1)
      }, md5('listing 2')::uuid, 5)
      `,
    },
    {
      what: "an answer to the order, from the shop to the buyer",
      statement: `
        insert into public.messages (sender_id, recipient_id, order_id, body)
        select seller_id, buyer_id, id, 'Thank you' from public.orders where id = 9001
      `,
    },
    {
      what: "a question from one buyer to another",
      statement: `
        insert into public.messages (sender_id, recipient_id, body) values (${user(40)}, ${user(41)}, 'Is it good?')
      `,
    },
    {
      what: "a listing of a clerk with an old token",
      user: user(7),
      statement: `insert into public.listings (category, title, price) values ('books', 'New', 3)`,
    },
    {
      what: "a review by a buyer with an old token",
      user: user(60),
      statement: `insert into public.reviews (listing_id, stars) values (md5('listing 159')::uuid, 5)`,
    },
    {
      what: "a favourite of a buyer with an old token",
      user: user(59),
      statement: `insert into public.favourites (listing_id) values (md5('listing 160')::uuid)`,
    },
    {
      what: "a payout and a supplier",
      statement: `
        with payout as (insert into public.payouts (seller_id, amount) values (${user(3)}, 10))
        insert into public.suppliers (owner_id, name) values (${user(4)}, 'New')
      `,
    },
  ],
  unplaced: `insert into public.suppliers (name) values ('Nobody''s')`,
  upserts: [
    {
      what: "favourites, found by the user and the listing",
      statement: `
        insert into public.favourites (profile_id, listing_id, note)
        select profile_id, listing_id, 'seen' from public.favourites order by 1, 2 limit 10
        on conflict (profile_id, listing_id) do update set note = excluded.note
      `,
    },
    {
      what: "orders, whose seller it does not name",
      statement: `
        insert into public.orders (id, buyer_id, amount)
        select id, buyer_id, 1 from public.orders order by id limit 10
        on conflict (id) do update set amount = excluded.amount
      `,
    },
  ],
  signUps: [
    {
      who: "a buyer",
      email: "new@market.example.com",
      tables: ["profiles"],
      rows: `
        select 'profiles' as table_name, profiles.org_id, personal.org_id as expected
        from public.profiles
        left join tenancy.user_orgs as personal
          on personal.user_id = profiles.id
          and personal.org_id not in (select org_id from tenancy.user_orgs where user_id <> profiles.id)
          and personal.org_id not in ('${defaultOrgId}')
        where profiles.id = $1
      `,
    },
  ],
};
