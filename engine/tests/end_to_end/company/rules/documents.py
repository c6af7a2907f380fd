"""The documents of one customer, run by run: what is due, what issued documents lack since, and what is taken back."""

from fractions import Fraction

from .charges import FIXED, TAXES, AsIssued, Billing, Known, Line, applies, billed_for, currency_of, fixed_lines, priced, tax_on
from .credits import Grants
from .numbers import DIGITS, plain, spread
from .periods import Due, due_of
from .unissued import Basis

TERMS_OF_ROW = ("customer", "plan", "seats", "anchor", "minimum", "maximum")


class Document:
    """What was issued. `accounts` and `prices` name the runs by whose accounts and prices it was made."""

    def __init__(self, customer, at, period, currency, lines, burns):
        self.customer, self.at, self.period, self.currency = customer, at, period, currency
        self.lines, self.burns = lines, burns
        self.number = self.voids = None
        self.run = self.issued_at = self.closed = self.one_offs = self.basis = None
        # By number, how it compared other documents.
        self.corrected = {}
        self.credits = 0

    def own(self):
        return [line for line in self.lines if line.corrects is None]

    def of(self, number):
        """Its lines that correct a document."""
        return [line for line in self.lines if line.corrects is not None and line.corrects[0] == number]

    def total(self):
        return sum(line.left() for line in self.lines if line.kind != "tax_included")

    def kind(self):
        if self.voids is not None:
            return "void"
        return "credit_note" if self.total() < 0 else "invoice"

    def as_json(self):
        def text(amount):
            return plain(Fraction(amount, 10 ** DIGITS[self.currency]))

        def of_line(line):
            corrects, kind = line.corrects or (None, None)
            names = ["region", "rate_percent"] if line.kind in TAXES else ["model"]
            return {
                "kind": line.kind, "price": line.price, "subscription": line.subscription, "corrects": corrects, "corrects_kind": kind,
                "dimensions": dict(zip(names, line.dimensions)),
                "quantity": None if line.quantity is None else plain(line.quantity), "amount": text(line.amount),
                "discount": text(line.discount), "promotional": text(line.promotional), "period": [line.starts, line.ends]}

        total = self.total()
        return {
            "number": self.number, "customer": self.customer, "period": self.period, "currency": self.currency, "voids": self.voids,
            "issued_at": self.issued_at, "kind": self.kind(), "lines": [of_line(line) for line in self.lines],
            "discount": text(sum(line.discount for line in self.lines)),
            "promotional": text(sum(line.promotional for line in self.lines)),
            "tax": text(sum(line.amount for line in self.lines if line.kind in TAXES)), "total": text(total),
            "credits": text(self.credits), "amount_due": text(total - self.credits)}


class Correction:
    """An issued document and what it would be now."""

    def __init__(self, document, issued, now, by, basis):
        self.document, self.issued, self.now = document, issued, now
        # The run by whose accounts and prices it is compared, and what it is made from now.
        self.by, self.basis = by, basis
        self.differences = self.differing()
        self.is_other = bool(self.differences) or bool(self.taxes(self.differences))

    def corrects(self, kind):
        return (self.document.number, kind)

    def differing(self):
        """What the document lacks, or has too much where it is below zero: a line for each price, dimensions and service period."""
        issued = [line for line in self.issued if line.kind not in TAXES]
        before, after = sums(issued), sums(line for line, _ in self.now)
        lines, seen = [], set()
        for line in [line for line, _ in self.now] + issued:
            key = line.key()
            if key in seen:
                continue
            seen.add(key)
            was, is_now = before.get(key, Sum()), after.get(key, Sum())
            amount, discount = is_now.amount - was.amount, is_now.discount - was.discount
            if amount == 0 and discount == 0:
                continue
            quantity = None
            if was.quantity is not None or is_now.quantity is not None:
                quantity = (is_now.quantity or 0) - (was.quantity or 0)
            lines.append(line.like(
                kind="adjustment", amount=amount, discount=discount, quantity=quantity, corrects=self.corrects(line.billed_kind())))
        return lines

    def left(self, adjusting):
        """What lines come to now, less what promotional credits paid of them and pay of the adjusting ones."""
        credited = sums([line for line in self.issued if line.kind not in TAXES] + adjusting)
        left = {}
        for key, now in sums(line for line, _ in self.now).items():
            net = now.amount - now.discount
            paid = credited[key].promotional if key in credited else 0
            left[key] = net - min(paid, max(net, 0))
        return left

    def tax_by_key(self):
        return {line.key(): tax for line, tax in self.now if tax is not None}

    def taxable(self, left):
        taxable = {}
        for key, tax in self.tax_by_key().items():
            if key in left:
                taxable[tax] = taxable.get(tax, 0) + left[key]
        return taxable

    def taxes(self, adjusting):
        """Tax now less the tax that was issued, a line for each rate, with each adjusting line's share of it."""
        unit = 10 ** DIGITS[self.document.currency]
        taxable, issued = self.taxable(self.left(adjusting)), {}
        for line in self.issued:
            if line.kind in TAXES:
                tax = (Fraction(line.dimensions[1]), line.kind == "tax_included", line.dimensions[0])
                quantity, amount = issued.get(tax, (0, 0))
                issued[tax] = (quantity + line.quantity, amount + line.amount)
        lines, tax_by_key = [], self.tax_by_key()
        for tax in sorted(set(taxable) | set(issued)):
            quantity, amount = issued.get(tax, (0, 0))
            more = tax_on(tax, taxable.get(tax, 0)) - amount
            if more == 0:
                continue
            line = tax_line(tax, more, self.document.period, Fraction(taxable.get(tax, 0), unit) - quantity)
            line.corrects = self.corrects(line.kind)
            # Those that move as the tax does bear it.
            weights = [
                abs(other.left()) if (other.left() < 0) == (more < 0) and tax_by_key.get(other.key(), tax) == tax else 0
                for other in adjusting]
            shares = spread(more, weights)
            if not any(weights) and shares:
                shares[0] = more
            lines.append((line, shares))
        return lines

    def owed(self, adjusting, is_wanted):
        """What lines come to now with their taxes, as far as they are wanted: by price and the last instant of their time."""
        left = {key: amount for key, amount in self.left(adjusting).items() if is_wanted(key[2], max(key[5] - 1, key[4]))}
        return sum(left.values()) + sum(tax_on(tax, taxable) for tax, taxable in self.taxable(left).items() if not tax[1])

    def promotional_back(self, adjusting):
        """How much of each adjusting line below zero promotional credits had paid beyond what the line comes to now."""
        before = sums(line for line in self.issued if line.kind not in TAXES)
        now = sums(line for line, _ in self.now)
        back = []
        for line in adjusting:
            key = line.key()
            paid = before[key].promotional if key in before else 0
            left = max(now[key].amount - now[key].discount, 0) if key in now else 0
            back.append(max(min(paid - left, -line.net()), 0))
        return back

    def prepaid_back(self, adjusting, net, paid, pays):
        """How much of each adjusting line below zero prepaid credits had paid: `paid` of the document, beyond what the lines that they
        pay come to now with their taxes."""
        owed = self.owed(adjusting, lambda price, at: pays(price))
        beyond, back = max(paid - max(owed, 0), 0), []
        for amount in net:
            back.append(max(min(-amount, beyond), 0))
            beyond -= back[-1]
        return back


class Sum:
    def __init__(self):
        self.quantity, self.amount, self.discount, self.promotional = None, 0, 0, 0


def sums(lines):
    """What lines of each key come to."""
    by_key = {}
    for line in lines:
        of_key = by_key.setdefault(line.key(), Sum())
        if line.quantity is not None:
            of_key.quantity = (of_key.quantity or 0) + line.quantity
        of_key.amount += line.amount
        of_key.discount += line.discount
        of_key.promotional += line.promotional
    return by_key


def owed_as_issued(issued, is_wanted):
    """What issued lines come to with their shares of the tax, as far as they are wanted."""
    stand = sums(line for line in issued if line.kind not in TAXES)
    left = [of_key.amount - of_key.discount - of_key.promotional for of_key in stand.values()]
    taxes = spread(sum(line.amount for line in issued if line.kind == "tax"), [max(amount, 0) for amount in left])
    return sum(
        amount + tax for key, amount, tax in zip(stand, left, taxes) if is_wanted(key[2], max(key[5] - 1, key[4])))


def tax_line(tax, amount, period, taxable):
    rate, is_included, region = tax
    kind = "tax_included" if is_included else "tax"
    return Line(kind, amount, period[0], period[1], dimensions=[region, plain(rate)], quantity=taxable)


def owed_of(net):
    """What each line comes to; what lines below zero give back is taken off the others in proportion."""
    weights = [max(amount, 0) for amount in net]
    back = min(-sum(amount for amount in net if amount < 0), sum(weights))
    return [weight - share for weight, share in zip(weights, spread(back, weights))]


class Composer:
    """Makes a document of its own lines and of what others lack."""

    def __init__(self, customer, due, currency, grants):
        self.customer, self.due, self.currency, self.grants = customer, due, currency, grants
        self.unit = 10 ** DIGITS[currency]
        self.burns = []

    def document(self, own, corrections, paid_of):
        lines, places = [line for line, _ in own], []
        for correction in corrections:
            first = len(lines)
            lines += correction.differences
            places.append((correction, first, len(lines)))
        back = [0] * len(lines)
        for correction, first, last in places:
            back[first:last] = correction.promotional_back(lines[first:last])
        for line, paid in zip(lines, self.credited("promotional", lines, [line.net() for line in lines], back)):
            line.promotional = paid
        taxes = self.own_taxes(own, lines)
        for correction, first, last in places:
            for line, shares in correction.taxes(lines[first:last]):
                taxes.append((line, [0] * first + shares + [0] * (len(lines) - last)))
        net = [line.left() for line in lines]
        for line, shares in taxes:
            if line.kind == "tax":
                net = [amount + share for amount, share in zip(net, shares)]
        earlier = {}
        for correction, first, last in places:
            paid, pays = paid_of(correction, earlier)
            earlier[correction.document.number] = (correction, lines[first:last])
            back[first:last] = correction.prepaid_back(lines[first:last], net[first:last], paid, pays)
        paid = self.credited("prepaid", lines, net, back)
        lines = lines + [line for line, _ in taxes]
        document = Document(self.customer, self.due.at, self.due.period(), self.currency, lines, self.burns)
        document.credits = sum(paid)
        return document

    def own_taxes(self, own, lines):
        """One line for each rate, rounded once over the lines that it is for, with each line's share."""
        by_tax = {}
        for place, (line, tax) in enumerate(own):
            if tax is not None:
                by_tax.setdefault(tax, [0] * len(lines))[place] = line.left()
        taxes = []
        for tax, amounts in sorted(by_tax.items()):
            whole = sum(amounts)
            line = tax_line(tax, tax_on(tax, whole), self.due.period(), Fraction(whole, self.unit))
            taxes.append((line, spread(line.amount, [max(amount, 0) for amount in amounts])))
        return taxes

    def credited(self, kind, lines, net, back):
        """What grants of a kind pay of each line, below zero where it goes back to them."""
        by = max(self.due.period()[1] - 1, self.due.period()[0])
        given = self.by_instant(lines, [place for place, amount in enumerate(back) if amount > 0], lambda at, places: (
            self.grants.give_back(kind, self.currency, at, max(by, at), [(lines[place].price, back[place]) for place in places])))
        owed = owed_of([amount - returned for amount, returned in zip(net, given)])
        paid = self.by_instant(lines, range(len(lines)), lambda at, places: (
            self.grants.pay(kind, self.currency, at, [(lines[place].price, owed[place]) for place in places])))
        return [returned + amount for returned, amount in zip(given, paid)]

    def by_instant(self, lines, places, payments):
        """Of lines whose service periods end apart those first that end first."""
        paid = [0] * len(lines)
        for at in sorted({lines[place].last() for place in places}):
            of_instant = [place for place in places if lines[place].last() == at]
            for place, grant, amount in payments(at, of_instant):
                paid[of_instant[place]] += amount
                self.burn(grant, at, amount)
        return paid

    def burn(self, grant, at, amount):
        """Notes what is burnt; a document says once what it burnt of a grant at an instant."""
        for place, (name, when, before) in enumerate(self.burns):
            if (name, when) == (grant, at):
                self.burns[place] = (name, when, before + amount)
                break
        else:
            self.burns.append((grant, at, amount))
        self.grants.burnt.append((grant, at, amount))


class Bill:
    """One customer's documents, and by what they were made."""

    def __init__(self, customer, story):
        self.customer, self.story = customer, story
        # In the order in which they were issued.
        self.documents = []
        self.memory = {}

    # What stands

    def standing(self):
        """Documents that are neither voided nor void others, each in its turn: one that was issued again has the place of the first
        that was due at its time."""
        voided = {document.voids for document in self.documents}
        first = {}
        for place, document in enumerate(self.documents):
            if document.voids is None:
                first.setdefault(document.at, (place, document.number in voided))
        standing = []
        for place, document in enumerate(self.documents):
            if document.voids is None and document.number not in voided:
                of_first, is_voided = first[document.at]
                standing.append((of_first if is_voided else place, document))
        return [document for _, document in sorted(standing, key=lambda known: known[0])]

    def stands_by(self, document, standing):
        """The run by whose accounts and prices a document is compared: its own, or that of the last one that corrected it."""
        last = self.last_correction(document, standing)
        return last.by if last else document.run

    def last_correction(self, document, standing):
        last = None
        for other in sorted(standing, key=self.documents.index):
            last = other.corrected.get(document.number, last)
        return last

    def basis_of(self, document, standing):
        """What a document is made from by what it stands; a correction by which it is not made at all leaves that."""
        basis = document.basis
        for other in sorted(standing, key=self.documents.index):
            correction = other.corrected.get(document.number)
            basis = correction.basis or basis if correction else basis
        return basis

    def issued_for(self, document, standing):
        """What was issued for a document: its own lines, and those of later ones that correct it."""
        return document.own() + [line for other in standing for line in other.of(document.number)]

    def burnt(self):
        return [burn for document in self.documents for burn in document.burns]

    # By what is known

    def known(self, by, run):
        """Accounts and prices of a run, with all usage that has arrived by another."""
        paid = self.story.paid(by, run, self.customer)
        return Known(self.story.accounts[by], self.story.prices[by], paid)

    def due(self, by, until, accounts=None):
        if accounts is not None:
            return due_of(accounts, self.story.prices[by].plans, self.customer, until)
        key = (by, until)
        if key not in self.memory:
            self.memory[key] = due_of(self.story.accounts[by], self.story.prices[by].plans, self.customer, until)
        return self.memory[key]

    # A run

    def run(self, run, corrects):
        """The documents that a run issues, each of which has a number before the next one is made."""
        now = self.story.at[run]
        standing = self.standing()
        at_issued = {document.at for document in standing}
        due = [due for at, due in self.due(run, now).items() if at not in at_issued]
        left_out = False
        if not corrects:
            due, left_out = self.without_issued(due, standing)
        corrections = self.everything(run, standing) if corrects else self.usage_alone(run, standing)
        differing = [correction for correction in corrections if correction.is_other]
        billed = [line for document in standing for line in document.lines]
        alone = corrects or left_out or not self.story.accounts[run].goes_on_after(self.customer, now)
        if not due and differing and alone:
            due = [Due(now)]
        for of_time in due:
            document = self.make(run, of_time, corrections, billed, standing, corrects)
            corrections = []
            if document is not None:
                yield document

    def make(self, run, due, corrections, billed, standing, corrects):
        known = self.known(run, run)
        for correction in corrections:
            billed += correction.differences
        in_advance, more = {}, []
        if not corrects:
            in_advance, more = self.without_reaching_back(run, due, standing)
        parts = due.parts() + more
        differing = [correction for correction in corrections if correction.is_other]
        currency = currency_of(known, due, parts) or (differing[0].document.currency if differing else None)
        if currency is None:
            return None
        own = []
        if parts or due.one_offs:
            own = priced(known, self.customer, due, parts, Billing(known, self.customer, billed, in_advance))
        grants = Grants(known.accounts.rows("grants", self.customer), self.burnt())
        composer = Composer(self.customer, due, currency, grants)
        document = composer.document(own, differing, lambda *of: self.paid_of(known, standing, *of))
        if not document.lines:
            return None
        document.run, document.issued_at = run, self.story.at[run]
        document.closed = [(cycle.subscription, cycle.opens, cycle.closes) for cycle in due.closing]
        document.one_offs = [row["one_off"] for row in due.one_offs]
        document.corrected = {correction.document.number: correction for correction in corrections}
        document.basis = Basis(known, self.customer, due.parts())
        billed += document.own()
        self.documents.append(document)
        return document

    def paid_of(self, known, standing, correction, earlier):
        """What prepaid grants paid of a document, and of which prices they pay. Money comes back first, so what other documents come to
        for the same last instants counts as paid by the grants: by what they are now where they are corrected earlier."""
        instants = {line.last() for line in correction.issued if line.kind not in TAXES}
        rows = {row["grant"]: row for row in known.accounts.rows("grants", self.customer)}
        paid = {}
        for grant, at, amount in self.burnt():
            if at in instants and (rows[grant].get("kind") or "prepaid") == "prepaid":
                paid[grant] = paid.get(grant, 0) + amount
        by = [rows[grant] for grant, amount in paid.items() if amount != 0]

        def pays(price):
            return any(applies(row, price) for row in by)

        def is_paid(price, at):
            return at in instants and pays(price)

        whole = sum(paid.values())
        for other in standing:
            if other is correction.document or not any(
                    line.last() in instants for line in other.own() if line.kind not in TAXES):
                continue
            if other.number in earlier:
                again, adjusting = earlier[other.number]
                whole -= max(again.owed(adjusting, is_paid), 0)
            else:
                whole -= max(owed_as_issued(self.issued_for(other, standing), is_paid), 0)
        return whole, pays

    def without_issued(self, due, standing):
        """What is due without billing periods of which a document of another time has billed some time, and without one-offs that one
        has billed: they wait until a run corrects. Also whether that leaves nothing of a document."""
        closed, one_offs, left, left_out = [], set(), [], False
        for document in standing:
            by = self.stands_by(document, standing)
            if by == document.run:
                closed += document.closed
                one_offs.update(document.one_offs)
            elif (now := self.due(by, self.story.at[by]).get(document.at)) is not None:
                closed += [(cycle.subscription, cycle.opens, cycle.closes) for cycle in now.closing]
                one_offs.update(row["one_off"] for row in now.one_offs)
        for of_time in due:
            rest = Due(of_time.at)
            rest.opening = of_time.opening
            rest.closing = [
                cycle for cycle in of_time.closing
                if not any(
                    name == cycle.subscription and opens < cycle.closes and cycle.opens < closes for name, opens, closes in closed)]
            rest.one_offs = [row for row in of_time.one_offs if row["one_off"] not in one_offs]
            if rest.is_nothing():
                left_out = True
            else:
                left.append(rest)
        return left, left_out

    # Prices in advance

    def meant(self, run, by, subscription, is_meant):
        """Accounts with the rows of a subscription that were known in a run, and those since for whose effect something holds; None
        when it holds for all."""
        if by == run:
            return None
        rows = self.story.accounts[by].subscriptions(self.customer).get(subscription, [])
        since = [row for row in self.story.accounts[run].subscriptions(self.customer).get(subscription, []) if row not in rows]
        kept = [row for row in since if is_meant(changes_at(rows, row))]
        if len(kept) == len(since):
            return None
        return self.story.accounts[run].with_subscription(subscription, rows + kept)

    def without_reaching_back(self, run, due, standing):
        """What prices in advance come to at the close of periods whose fee was issued, without changes that reach back before it."""
        in_advance, more = {}, []
        for cycle in due.closing:
            opened = next((document for document in standing if document.at == cycle.opens), None)
            if opened is None:
                continue
            by = self.stands_by(opened, standing)
            accounts = self.meant(run, by, cycle.subscription, lambda at: opened.issued_at < at)
            other = cycle
            if accounts is not None:
                other = self.due(run, due.at, accounts).get(due.at)
                other = other and next((own for own in other.closing if own.subscription == cycle.subscription), None)
                names = list(other.segments) if other else []
                more += [(cycle, name, False) for name in names if name not in cycle.segments]
            in_advance[(cycle.subscription, False)] = self.rated_by(run, by, opened, other)
        return in_advance, more

    def rated_by(self, run, by, opened, other):
        """What prices in advance come to by another form of a billing period; nothing where there is none. A fee that a document has
        billed for it is what it was by what that document stands."""

        def rated(cycle, name, price, unit):
            is_billed = bool(billed_for(opened.own(), cycle, price))
            prices = self.story.prices[by if is_billed else run]
            return fixed_lines(prices, other, name, price, unit) if other else []

        return rated

    # Corrections

    def usage_alone(self, run, standing):
        """Documents that are another by usage that came since, by all else as they knew it."""
        corrections = []
        for document in sorted(standing, key=self.documents.index):
            if document.period[1] > document.at or not self.story.came(self.customer, document, run):
                continue
            by = self.stands_by(document, standing)
            due = self.due(by, max(document.issued_at, document.at)).get(document.at)
            if due is None:
                continue
            issued = self.issued_for(document, standing)
            turn = standing.index(document)
            billed = [line for other in standing[:turn] for line in self.issued_for(other, standing)]
            known, parts = self.known(by, run), due.parts()
            fixed = self.fixed_by_part(known, parts, issued)
            if fixed is None:
                continue
            now = priced(known, self.customer, due, parts, AsIssued(known, fixed, billed)) if parts or due.one_offs else []
            correction = Correction(document, issued, now, by, Basis(known, self.customer, parts))
            if correction.is_other:
                corrections.append(correction)
        return corrections

    def fixed_by_part(self, known, parts, issued):
        """The lines of fixed prices as they stand, each with the part that it is of; None where one is of none."""
        stands, fixed = sums(line for line in issued if line.billed_kind() in FIXED), {}
        for line in {line.key(): line for line in reversed(issued) if line.billed_kind() in FIXED}.values():
            of_key = stands[line.key()]
            own = line.like(
                kind=line.billed_kind(), amount=of_key.amount, discount=0, quantity=of_key.quantity, corrects=None)
            part = next((part for part in parts if self.is_of(known, own, part, True)), None)
            part = part or next((part for part in parts if self.is_of(known, own, part, False)), None)
            if part is None:
                return None
            fixed.setdefault(id(part), []).append(own)
        return fixed

    def is_of(self, known, line, part, in_force):
        cycle, name, is_opening = part
        terms = known.prices.plans[name]
        if line.price not in terms["prices"] or (is_opening and line.price not in terms["in_advance"]):
            return False
        holds = any(starts <= line.starts < ends for starts, ends, _ in cycle.segments.get(name, []))
        return (
            (holds or not in_force) and line.subscription == cycle.subscription and cycle.starts <= line.starts < cycle.ends)

    def everything(self, run, standing):
        """Documents by all that is known now, each after those that were issued before it."""
        known, corrections, billed = self.known(run, run), [], []
        for document in standing:
            issued = self.issued_for(document, standing)
            due = self.due(run, max(self.story.at[run], document.at)).get(document.at)
            now, basis = [], None
            if due is not None:
                basis = Basis(known, self.customer, due.parts())
                parts, in_advance = self.without_ordinary(run, document, due)
                if parts or due.one_offs:
                    now = priced(known, self.customer, due, parts, Billing(known, self.customer, billed, in_advance))
            correction = Correction(document, issued, now, run, basis)
            corrections.append(correction)
            billed = billed + correction.differences + issued
        return corrections

    def without_ordinary(self, run, document, due):
        """What a document billed in advance by the rows that were known or that start before it was issued."""
        parts, in_advance = due.parts(), {}
        for cycle in due.opening:
            accounts = self.meant(run, document.run, cycle.subscription, lambda at: at <= document.issued_at)
            if accounts is None:
                continue
            other = self.due(run, due.at, accounts).get(due.at)
            other = other and next((own for own in other.opening if own.subscription == cycle.subscription), None)
            parts = [part for part in parts if not (part[2] and part[0] is cycle)]
            if other is not None:
                parts += [(other, name, True) for name in other.segments]
        return parts, in_advance

    def unissued(self, run):
        """What a run that corrects everything would issue: of each document that is another how much and why, and documents that were
        due and are not issued."""
        before, standing, rows = list(self.documents), self.standing(), []
        for document in list(self.run(run, True)):
            left = document.total()
            for number, correction in document.corrected.items():
                amount = sum(line.left() for line in document.of(number) if line.kind != "tax_included")
                left -= amount
                if amount != 0:
                    causes = self.basis_of(correction.document, standing).causes(correction.basis)
                    rows.append(self.unissued_row(document, correction.document.period, number, amount, causes))
            if document.own():
                rows.append(self.unissued_row(document, document.period, None, left, "no invoice was issued"))
        self.documents = before
        return sorted(rows, key=lambda row: (row["period"], row["number"] or ""))

    def unissued_row(self, document, period, number, amount, cause):
        text = plain(Fraction(amount, 10 ** DIGITS[document.currency]))
        return {
            "customer": self.customer, "period": period, "number": number, "currency": document.currency, "amount": text,
            "cause": cause}

    # Voids

    def void(self, run, at):
        """The document that takes back the last one that stands, if there is one."""
        standing = sorted(self.standing(), key=self.documents.index)
        if not standing:
            return
        voided = standing[-1]
        lines = []
        for line in voided.lines:
            kind = line.kind if line.kind in TAXES else "adjustment"
            lines.append(line.like(
                kind=kind, amount=-line.amount, discount=-line.discount, promotional=-line.promotional,
                quantity=None if line.quantity is None else -line.quantity, corrects=(voided.number, line.billed_kind())))
        rows = self.story.accounts[run].rows("grants", self.customer)
        burns = Grants(rows, self.burnt()).undo(voided.burns, at)
        document = Document(self.customer, voided.at, voided.period, voided.currency, lines, burns)
        document.voids, document.run, document.issued_at = voided.number, run, at
        promotional = {row["grant"] for row in rows if row.get("kind") == "promotional"}
        document.credits = sum(amount for grant, _, amount in burns if grant not in promotional)
        self.documents.append(document)
        yield document


def changes_at(before, row):
    """From when on a row changes what rows before it say: from its start, or from the earlier end where nothing but an end is another."""
    replaced = next((known for known in before if known["starts_at"] == row["starts_at"]), None)
    if replaced is None or any((replaced.get(name) or None) != (row.get(name) or None) for name in TERMS_OF_ROW):
        return row["starts_at"]
    ends = [(replaced[name], row[name]) for name in ("ends_at", "trial_ends_at") if replaced[name] != row[name]]
    return min((at for pair in ends for at in pair if at is not None), default=row["starts_at"])
